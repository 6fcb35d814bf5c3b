"""The kernel zone: code that runs in, or is forked into, the process of the student's code.

Nothing here knows a hidden check, an expected value or a secret, and nothing here decides a score.
The package imports only `autograder.wire` from the rest of the project.
"""
