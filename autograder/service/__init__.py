"""The autograder as a JupyterHub service that grades submissions in nbgrader's exchange.

Data flows one way: the exchange's inbound folder (`inbound`) → decisions (`decide`) → results
(`fair_queue`, the engine) → gradebook, feedback and exchange (`publish`, `notices`) → the page
(`view`, `web`).  `reconcile` runs this, and `work` keeps what is in progress.
"""
