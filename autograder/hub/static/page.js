// Keeps the page current, and sends its forms without leaving it.
"use strict";

const PAUSE = 2000; // milliseconds between two questions
const state = document.getElementById("state");
const said = document.getElementById("said");
const looked = document.getElementById("looked");
const headers = { "Accept": "application/json", "X-XSRFToken": document.body.dataset.xsrf };
let shown = null;

async function ask(address, options = {}) {
  const answer = await fetch(address, { credentials: "same-origin", headers, ...options });
  const content = await answer.json();
  if (!answer.ok) {
    throw new Error(content.error);
  }
  return content;
}

// The server has escaped everything in `html`; what has focus keeps it.
function show(html) {
  if (html === shown) {
    return;
  }
  const focused = document.activeElement && document.activeElement.id;
  const first = shown === null;
  shown = html;
  state.innerHTML = html;
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

async function refresh() {
  try {
    const content = await ask("api/fragment");
    show(content.html);
    looked.textContent = content.looked;
  } catch (error) {
    say(error instanceof TypeError ? "The service does not answer; trying again." : error.message);
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
    say(error.message);
  }
});

follow();
