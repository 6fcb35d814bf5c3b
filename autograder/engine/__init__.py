"""The trusted side: restores a submission, runs it in a kernel, checks it and awards points.

Nothing in this package knows a particular assignment.
"""
