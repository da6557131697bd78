"""What hpclab costs, measured side by side with what it replaces: `scripts/bench start|worker|cli|lab|queue|tunnel`.

The figures of one run mean little on a busy machine; the ratios of neighbouring runs mean more.
"""
