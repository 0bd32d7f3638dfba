// What every page shares: menus that close, messages that go away, copying, and errors of partial updates.
"use strict";

document.documentElement.classList.add("has-script");

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (menu !== except) menu.open = false;
  }
}

async function copyFrom(button) {
  const source = document.getElementById(button.dataset.copy);
  const label = button.querySelector("[data-copy-label]") || button;
  const usual = label.textContent;
  let said = "Copied";
  try {
    await navigator.clipboard.writeText("value" in source ? source.value : source.textContent);
  } catch {
    // Without permission, or on plain http: select it, so that one key press copies.
    getSelection().selectAllChildren(source);
    said = "Press Ctrl+C";
  }
  label.textContent = said;
  setTimeout(() => { label.textContent = usual; }, 2000);
}

document.addEventListener("click", (event) => {
  closeMenus(event.target.closest("details[data-menu]"));
  const copy = event.target.closest("[data-copy]");
  if (copy) copyFrom(copy);
  event.target.closest("[data-dismiss]")?.closest(".toast")?.remove();
  const banner = event.target.closest("[data-dismiss-banner]")?.closest("[data-banner]");
  if (banner) {
    sessionStorage.setItem(`banner:${banner.dataset.banner}`, "dismissed");
    banner.remove();
  }
  const toggle = event.target.closest("[data-nav-toggle]");
  if (toggle) {
    const nav = document.getElementById(toggle.getAttribute("aria-controls"));
    toggle.setAttribute("aria-expanded", nav.classList.toggle("is-open"));
  }
});

// A banner that was dismissed stays away as long as the tab is open and its period lasts.
for (const banner of document.querySelectorAll("[data-banner]")) {
  if (sessionStorage.getItem(`banner:${banner.dataset.banner}`)) banner.remove();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeMenus(null);
});

// A second press while the first is under way would send the form twice.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Filters apply as soon as they are chosen; without a script there is a button.
document.addEventListener("change", (event) => {
  // A text field also changes when it goes away with its form; only choices apply themselves.
  if (event.target.matches("select, input[type=checkbox], input[type=radio]")) {
    event.target.closest("form[data-auto-submit]")?.requestSubmit();
  }
});

function say(text) {
  const toasts = document.getElementById("toasts");
  if (!toasts) return;
  const toast = document.createElement("div");
  toast.className = "toast toast-error";
  const words = document.createElement("p");
  words.textContent = text;
  toast.append(words);
  toasts.replaceChildren(toast);
}

document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (status === 403 || status === 404) location.reload();
  else say("That did not work. Nothing was changed; please try again.");
});
document.addEventListener("htmx:sendError", () => say("The server cannot be reached. Please try again."));
// When the server has the page loaded anew, whoever works by keyboard or listens goes on where they were.
document.addEventListener("htmx:beforeOnLoad", (event) => {
  const at = document.activeElement;
  if (event.detail.xhr.getResponseHeader("HX-Refresh") !== "true" || !at) return;
  const href = at.getAttribute("href");
  const place = at.id ? `#${CSS.escape(at.id)}` : href && `a[href="${CSS.escape(href)}"]`;
  if (place) sessionStorage.setItem("focus", place);
});
const focusBefore = sessionStorage.getItem("focus");
if (focusBefore) {
  sessionStorage.removeItem("focus");
  document.querySelector(focusBefore)?.focus({ preventScroll: true });
}

// A refused form comes back with 422 and is shown like any other answer.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 422) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});
