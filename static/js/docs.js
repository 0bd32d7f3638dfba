// A language that was chosen once is shown in every example, also on the next page.
"use strict";

const CHOSEN = "docs-language";

function choose(language) {
  for (const tab of document.querySelectorAll('[data-tabs] [role="tab"]')) {
    if (tab.textContent === language && tab.getAttribute("aria-selected") !== "true") tab.click();
  }
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest('[role="tab"]');
  if (!tab || !event.isTrusted) return;
  const before = tab.getBoundingClientRect().top;
  localStorage.setItem(CHOSEN, tab.textContent);
  choose(tab.textContent);
  // Examples above may have become longer or shorter: what was clicked stays where it was.
  scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" });
});

choose(localStorage.getItem(CHOSEN));
