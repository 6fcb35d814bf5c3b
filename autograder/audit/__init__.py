"""Grades the grader: runs known wrong and known right solutions through the real engine.

The tables of an assignment `ch4-cnn` are the TOML files in `tests/validity/ch4_cnn/`:

- `[[mutant]]`: a wrong solution, the checks that must fail for it (all others must pass), and what
  the first of their hints must say.
- `[[equivalent]]`: a right solution written differently; every check must pass.
- `[[unfinished]]`: cells left unwritten in the mutants of some other cells, to save the time they
  take; their checks are not judged there.
- `[[seeds]]`: the complete solution after a line that sets the random seed, for a number of seeds.
- `[[survivor]]`: machine-made mutants that keep full marks, and why that is right.
- `[[elsewhere]]`: machine-made mutants that only the checks of other cells fail, and why.

`demands.toml` is of another kind: `autograder.audit.demands` reads the notebooks' demands from it.

Besides the tables there are *mutations* and *rewritings*, wrong and right solutions that
`autograder.audit.operators` makes of every solution cell.  The audit tries a sample of them, drawn
evenly from the cells.

An optional `files.py` beside the tables says which files are handed in with the notebooks, and
names variants of them.  docs/writing-checks.md explains how to write a table.

One module has one part of the way from tables to a report:

- `trials`: a trial, which is one notebook to grade and its expected outcome;
- `tables`: the trials of an assignment's tables, and the machine-made ones of `operators`;
- `demands`: what the notebooks ask for, and which check looks at it;
- `submissions`: the folder that each trial hands in;
- `outcomes`: what came out, compared with what was expected;
- `run`: the choice of trials, and their way through the engine;
- `report`: the figures, the matrix and the report in Markdown.
"""
