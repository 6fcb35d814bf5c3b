// Shows times in the reader's zone; the server writes them in its own.
"use strict";

function showTimes(root) {
  const today = new Date().toDateString();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const then = new Date(element.dateTime);
    const clock = { hour: "2-digit", minute: "2-digit" };
    const day = { day: "numeric", month: "short" };
    const options = then.toDateString() === today ? clock : { ...day, ...clock };
    element.title = then.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    element.textContent = then.toLocaleString(undefined, options);
  }
}

showTimes(document);
