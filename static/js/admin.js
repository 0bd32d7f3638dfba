// The stock admin leaves some fields without a name for screen readers; they get the words that stand beside them.
"use strict";

function words(element) {
  return element ? element.textContent.replace(/\s+/g, " ").replace(/:\s*$/, "").trim() : "";
}

function nameOf(field) {
  const cell = field.closest(".tabular td");
  if (cell) {
    const head = cell.closest("table").tHead.rows[0].cells[cell.cellIndex];
    return words(head) || "Delete";
  }
  const row = field.closest("fieldset.flex-container, .form-row");
  const label = row?.querySelector("legend, label");
  const part = field.matches(".vDateField") ? ", date" : field.matches(".vTimeField") ? ", time" : "";
  return words(label) ? words(label) + part : "";
}

function nameFields(root) {
  for (const field of root.querySelectorAll(".tabular td :is(input, select, textarea), .vDateField, .vTimeField")) {
    if (field.type !== "hidden" && !field.labels?.length) field.setAttribute("aria-label", nameOf(field));
  }
  for (const chosen of root.querySelectorAll(".select2-selection, .select2-selection__rendered")) {
    const select = chosen.closest(".select2-container").previousElementSibling;
    const name = words(select?.labels?.[0]) || select?.getAttribute("aria-label");
    if (!name) continue;
    // The list box is named by its own text, which is empty as long as nothing is chosen.
    chosen.removeAttribute("aria-labelledby");
    chosen.setAttribute("aria-label", name);
  }
  for (const help of root.querySelectorAll("span.help-tooltip[aria-label]")) help.setAttribute("role", "img");
  root.querySelector("#searchbar")?.setAttribute("aria-label", "Search");
}

// Stock scripts make fields of their own, some when jQuery is ready and some at the load event: each time they are done.
globalThis.django?.jQuery?.(() => nameFields(document));
addEventListener("load", () => nameFields(document));
document.addEventListener("formset:added", (event) => nameFields(event.target));
