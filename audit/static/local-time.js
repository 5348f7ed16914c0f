// Shows times in the reader's own locale and zone; without scripts they stay in UTC words.
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
