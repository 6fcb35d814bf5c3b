"""An autograder for nbgrader courses whose student code and hidden checks never share a process.

Data flows one way: submission → kernel → values → checks → results → gradebook.

========== ===================================================================
`kernel`   untrusted: what runs in the process of the student's code
`checks`   trusted: the hidden checks, one package per assignment
`engine`   trusted: runs notebooks, asks for values, decides points
`record`   trusted: writes results into nbgrader's gradebook and notebooks
`wire`     the frames that cross from the first zone to the second
========== ===================================================================
"""

__version__ = "0.1.0"
