// The inbox: it looks for news by itself, and keeps what was chosen meanwhile.
"use strict";

const choices = () => [...document.querySelectorAll("#inbox [data-choose]:enabled")];
let chosen = new Set();

function showNumber() {
  const all = choices();
  const number = all.filter((each) => each.checked).length;
  const words = document.querySelector("#inbox [data-chosen]");
  const chooseAll = document.querySelector("#inbox [data-choose-all]");
  if (!words || !chooseAll) return;
  words.textContent = number ? `${number} chosen` : "";
  chooseAll.checked = number > 0 && number === all.length;
  chooseAll.indeterminate = number > 0 && number < all.length;
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-choose-all]")) {
    for (const each of choices()) each.checked = event.target.checked;
  }
  if (event.target.matches("[data-choose-all], [data-choose]")) showNumber();
});

// Nobody looks at a hidden page.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.id === "inbox" && document.hidden) event.preventDefault();
});

let open = document.getElementById("inbox").dataset.open;
document.addEventListener("htmx:beforeSwap", () => {
  chosen = new Set(choices().filter((each) => each.checked).map((each) => each.value));
});
document.addEventListener("htmx:afterSwap", () => {
  for (const each of choices()) each.checked = chosen.has(each.value);
  showNumber();
  const now = document.getElementById("inbox").dataset.open;
  if (now !== open) document.getElementById("inbox-news").textContent = `${now} open alerts`;
  open = now;
});
addEventListener("pageshow", showNumber);
