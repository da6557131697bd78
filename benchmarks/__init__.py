"""What hpclab costs, measured side by side with what it replaces: `scripts/bench NAME`.

The figures of one run mean little on a busy machine; the ratios of neighbouring runs mean more.
"""
