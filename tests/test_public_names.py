"""What `import hpclab` promises."""

import hpclab
from hpclab.session import Session


def test_public_names():
    assert sorted(hpclab.__all__) == ["Session", "__version__"]
    assert all(hasattr(hpclab, name) for name in hpclab.__all__)
    assert hpclab.Session is Session
    assert hpclab.__version__.count(".") == 2
    assert not hasattr(hpclab, "Sessions")
