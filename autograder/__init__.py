"""An autograder for nbgrader courses whose student code and hidden checks never share a process.

Data flows one way: submission → kernel → values → checks → results → gradebook.

========== ===================================================================
`kernel`   untrusted: code in the process that runs the student's code
`checks`   trusted: the hidden checks, one package per assignment
`engine`   trusted: runs notebooks, asks for values, awards points
`record`   trusted: writes results into nbgrader's gradebook and notebooks
`wire`     the frames that cross from the untrusted side to the trusted one
========== ===================================================================
"""

__version__ = "0.1.0"
