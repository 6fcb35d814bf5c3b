"""nbgrader's configuration for this course; nbgrader reads it in the course root."""

from autograder.record.autograde import install

install()
c = get_config()  # noqa: F821  nbgrader provides it

c.CourseDirectory.course_id = "deep-learning"
# What a course root holds beside the work itself.
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "*.pyc",
    "__pycache__",
    ".autograder",
    "feedback",
    "results.json",
    # Of a checkpoint only the last step's tensors are graded; the rest need not travel.
    "mdc_session-[0-3]*",
    "*.meta",
]

# Five checkpoints lie in a student's folder, and nbgrader adds them up before it leaves four out.
c.CourseDirectory.max_dir_size = 1_000_000  # kB

# Releases: each stub names the cell that is still to be written.
GLUE = "autograder.record.nbgrader_glue"
PRE = "nbgrader.preprocessors"
c.GenerateAssignment.preprocessors = [
    f"{PRE}.LockCells",
    f"{GLUE}.LabelledStubs",
    f"{PRE}.ClearOutput",
    f"{PRE}.CheckCellMetadata",
    f"{PRE}.ComputeChecksums",
    f"{PRE}.SaveCells",
    f"{PRE}.CheckCellMetadata",
]

# Grading: the engine reads and runs what was handed in; nbgrader records.
c.Autograde.exporter_class = f"{GLUE}.GradedExporter"
c.Autograde.autograde_preprocessors = [f"{GLUE}.SaveGrades", f"{PRE}.AssignLatePenalties"]

# Feedback: whatever a student wrote is shown as text, never run in the reader's browser.
c.HTMLExporter.sanitize_html = True
c.GenerateFeedback.exporter_class = "autograder.record.feedback.FeedbackExporter"

# Validate runs the notebook on the student's own server, training included.
c.Execute.timeout = 1800
