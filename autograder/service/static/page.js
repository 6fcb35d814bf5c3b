// Keeps the page current, and sends its forms without leaving it.
"use strict";

const PAUSE = 2000; // milliseconds between two questions
const OFTEN = 30000; // milliseconds within which the page logs in by itself only once
const state = document.getElementById("state");
const said = document.getElementById("said");
const looked = document.getElementById("looked");
const trouble = document.getElementById("trouble");
const headers = { "Accept": "application/json", "X-XSRFToken": document.body.dataset.xsrf };
let shown = null;
let current = new Date(); // when what is shown was true

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(address, options = {}) {
  const answer = await fetch(address, { credentials: "same-origin", headers, ...options });
  const type = answer.headers.get("Content-Type") || "";
  if (!type.includes("json")) { // the Hub or its proxy answers in the service's place
    throw new Refused(502, "");
  }
  const content = await answer.json();
  if (!answer.ok) {
    throw new Refused(answer.status, content.error);
  }
  return content;
}

// The server has escaped everything in `html`; what has focus, or is unfolded, stays so.
function show(html) {
  if (html === shown) {
    return;
  }
  const focused = document.activeElement && document.activeElement.id;
  const first = shown === null;
  const folds = new Map([...state.querySelectorAll("details[id]")].map((fold) => [fold.id, fold.open]));
  shown = html;
  state.innerHTML = html;
  for (const fold of state.querySelectorAll("details[id]")) {
    if (folds.has(fold.id)) {
      fold.open = folds.get(fold.id);
    }
  }
  showTimes(state);
  if (focused && document.getElementById(focused)) {
    document.getElementById(focused).focus({ preventScroll: true });
  }
  if (!first) {
    const summaries = [...state.querySelectorAll(".summary")].map((line) => line.textContent);
    say(summaries.join(" "));
  }
}

function say(text) {
  if (said.textContent !== text) {
    said.textContent = text;
  }
}

// Says above everything why the page is not current; `link` leads out of it.
function warn(text, link = "") {
  const since = current.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  const line = text && `${text} What you see is from ${since}.`;
  if (trouble.dataset.line === line) {
    return;
  }
  trouble.dataset.line = line;
  trouble.hidden = !text;
  trouble.textContent = line;
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = location.pathname;
    anchor.textContent = link;
    trouble.append(" ", anchor);
  }
}

// Loads the page anew: the Hub lets in who is logged in there, and else asks for the password.
function logIn() {
  const last = Number(sessionStorage.getItem("autograder-login") || 0);
  if (Date.now() - last < OFTEN) {
    warn("You are logged out.", "Log in again");
    return;
  }
  sessionStorage.setItem("autograder-login", String(Date.now()));
  warn("You are logged out; asking the Hub …");
  location.reload();
}

function explain(error) {
  if (error instanceof TypeError || error.status >= 500) {
    warn(error.message && error.status === 500
      ? error.message
      : "The service does not answer; it may be starting. This page asks again by itself.");
  } else if (error.status === 401) {
    logIn();
  } else {
    warn(error.message);
  }
}

async function refresh() {
  try {
    const content = await ask("api/fragment");
    const back = !trouble.hidden;
    current = new Date();
    warn("");
    show(content.html);
    looked.innerHTML = content.looked;
    showTimes(looked);
    if (back) {
      say("The service answers again.");
    }
  } catch (error) {
    explain(error);
  }
}

async function follow() {
  if (!document.hidden) {
    await refresh();
  }
  setTimeout(follow, PAUSE);
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  try {
    const content = await ask(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    await refresh();
    say(content.said);
  } catch (error) {
    if (error.status === 403) {
      say(error.message);
    } else {
      explain(error);
    }
  }
});

follow();
