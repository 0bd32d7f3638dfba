// The list of requests and the form of exports.
"use strict";

// A form that comes back from the server shows as many filters as before.
let moreFilters = false;
document.addEventListener("htmx:beforeSwap", () => {
  moreFilters = Boolean(document.querySelector(".more-filters")?.open);
});
document.addEventListener("htmx:afterSwap", () => {
  const more = document.querySelector(".more-filters");
  if (more && moreFilters) more.open = true;
});

// The search behind the list of requests goes on by itself until the page is full, or somebody stops it.
document.addEventListener("click", (event) => {
  const list = document.getElementById("request-list");
  if (event.target.closest("[data-search-stop]")) list.classList.add("is-stopped");
  if (event.target.closest("[data-search-on]")) list.classList.remove("is-stopped");
});

// What is under way is let in; only the next step is not taken.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches("[data-search]") && event.target.closest(".is-stopped")) event.preventDefault();
});
