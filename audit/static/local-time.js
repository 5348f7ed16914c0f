// Shows times in the reader's own locale and zone; without scripts they stay in UTC words. And says
// when the console has stopped answering: a green strip that nobody keeps up to date is none.
"use strict";
const shapes = {
  moment: { dateStyle: "long", timeStyle: "short" },
  day: { dateStyle: "medium" },
};
function localise(root) {
  for (const time of root.querySelectorAll("time[data-show]")) {
    const moment = new Date(time.dateTime);
    time.textContent = new Intl.DateTimeFormat(undefined, shapes[time.dataset.show]).format(moment);
  }
}
localise(document);
document.addEventListener("htmx:afterSwap", (event) => localise(event.target));

let silent = false;
function sayLost() {
  const strip = document.querySelector(".strip");
  if (silent || !strip) return;
  silent = true;
  if (strip.classList.contains("good")) {
    strip.classList.replace("good", "warn");
    strip.querySelector("[aria-hidden]").textContent = "!";
  }
  const lost = document.createElement("strong");
  lost.textContent = "The console does not answer; this page is not kept up to date. ";
  strip.querySelector("p").prepend(lost);
}
document.addEventListener("htmx:sendError", sayLost);
document.addEventListener("htmx:responseError", sayLost);
document.addEventListener("htmx:afterRequest", (event) => {
  if (silent && event.detail.successful) window.location.reload();
});
