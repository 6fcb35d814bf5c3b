"""The trusted side: restores a submission, runs it in a kernel, checks it, decides points.

Nothing here knows a particular assignment.
"""
