"""JupyterHub's configuration for automatically graded courses.

All site-specific values (people, courses, paths) come from one JSON file, named by COURSE_HUB.
`make hub` writes it for a demonstration, `python -m deploy.install` for a Hub of your own.  The
rest is the same everywhere; an institution's own settings are in a separate file, read last.

Each course has a Unix account, two groups and two services:

    grader account            owns the course's folder, which students cannot read
    nbgrader-<course>         the group of its students
    formgrade-<course>        the group of its instructors and the grader account
    /services/<course>/       formgrader, and a JupyterLab for the notebooks' sources
    /services/<course>-autograder/   grades submissions, and shows the results of the class
"""

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

c = get_config()  # noqa: F821  JupyterHub provides it

place = json.loads(Path(os.environ["COURSE_HUB"]).read_text(encoding="utf-8"))
courses = place["courses"]
instructors = {name for course in courses.values() for name in course["instructors"]}
students = {name for course in courses.values() for name in course["students"]}

# -- the Hub itself --------------------------------------------------------------------------
c.JupyterHub.bind_url = place["url"]
c.JupyterHub.hub_bind_url = place["hub_url"]
c.JupyterHub.db_url = f"sqlite:///{place['state']}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = f"{place['state']}/cookie_secret"
c.ConfigurableHTTPProxy.api_url = place["proxy_url"]
c.ConfigurableHTTPProxy.pid_file = f"{place['state']}/proxy.pid"
# This proxy is pure Python; npm's configurable-http-proxy serves larger classes.
c.ConfigurableHTTPProxy.command = [
    sys.executable,
    "-c",
    "from configurable_http_proxy.cli import main; main()",
    # The default is 20 seconds, but Validate runs a whole notebook before it answers.
    "--proxy-timeout=3600000",
]
# Servers end with the Hub.
c.JupyterHub.cleanup_servers = True

# -- who may log in ---------------------------------------------------------------------------
c.JupyterHub.authenticator_class = place["authenticator"]
c.PasswordFile.passwords = place["passwords"]  # of a demonstration
c.PAMAuthenticator.open_sessions = False
c.Authenticator.allowed_users = instructors | students

# -- users' servers -----------------------------------------------------------------------------
c.JupyterHub.spawner_class = place["spawner"]
c.Spawner.cmd = [f"{place['environment']}/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
if place["homes"]:
    c.LocalProcessSpawner.shell_cmd = []
    c.SimpleLocalProcessSpawner.home_dir_template = f"{place['homes']}/{{username}}"


everyone = f"{place['jupyter']}/everyone"


def jupyter_folders(spawner):
    """Jupyter's configuration path for a user, whose role decides which Lab extensions are on."""
    is_instructor = spawner.user.name in instructors
    return f"{place['jupyter']}/instructor:{everyone}" if is_instructor else everyone


c.Spawner.environment = {
    "NBGRADER_EXCHANGE": place["exchange"],
    "MNIST_DIR": place["mnist"],
    "JUPYTER_CONFIG_PATH": jupyter_folders,
}

# -- groups, roles and services of each course ---------------------------------------------------
# The scopes of a user's server: report activity, and read the user's name and groups (courses).
# The last lines have no effect for users whose roles do not grant these scopes.
c.Spawner.server_token_scopes = [
    "users:activity!user",
    "access:servers!server",
    "read:users:name!user",
    "read:users:groups!user",
    "list:services",
    *(f"read:services!service={course}" for course in courses),
    *(f"access:services!service={course}" for course in courses),
]
c.JupyterHub.load_groups = {}
c.JupyterHub.load_roles = []
c.JupyterHub.services = []

for name, course in courses.items():
    grader = course["grader"]
    environment = {
        "NBGRADER_EXCHANGE": place["exchange"],
        "MNIST_DIR": place["mnist"],
        "JUPYTER_CONFIG_PATH": f"{place['jupyter']}/grader:{everyone}",
    }
    c.JupyterHub.load_groups |= {
        f"nbgrader-{name}": {"users": course["students"]},
        f"formgrade-{name}": {"users": [*course["instructors"], grader]},
    }
    c.JupyterHub.load_roles += [
        {
            "name": f"instructor-{name}",
            "groups": [f"formgrade-{name}"],
            "scopes": [
                f"access:services!service={name}",
                f"access:services!service={name}-autograder",
                "list:services",
                f"read:services!service={name}",
            ],
        },
        {
            "name": f"formgrader-{name}",
            "services": [name],
            "scopes": [f"read:users:name!user={grader}", f"read:users:groups!user={grader}"],
        },
    ]
    c.JupyterHub.services += [
        {
            "name": name,
            "url": course["formgrader_url"],
            "command": [
                f"{course['environment']}/bin/jupyterhub-singleuser",
                f"--ServerApp.root_dir={course['root']}",
                "--ServerApp.default_url=/formgrader",
                # Pages of other users on the Hub must not be able to frame this one, so formgrader
                # opens in a tab; docs/hub.md explains how to have it inside JupyterLab.
            ],
            "user": grader if place["accounts"] else "",
            "cwd": course["root"],
            "environment": environment | {"JUPYTERHUB_USER": grader},
            "oauth_no_confirm": True,
            "timeout": 120,  # a Hub gives up when a service does not answer by then
        },
        {
            "name": f"{name}-autograder",
            "url": course["autograder_url"],
            "command": [f"{course['environment']}/bin/python", "-m", "autograder.service"],
            "user": grader if place["accounts"] else "",
            "cwd": course["root"],
            "environment": environment,
            "oauth_no_confirm": True,
            "timeout": 120,  # a Hub gives up when a service does not answer by then
        },
    ]

# -- the institution's own settings ----------------------------------------------------------------
if place["extra"]:
    load_subconfig(place["extra"])  # noqa: F821  JupyterHub provides it
