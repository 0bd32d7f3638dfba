// Forms of a person's account: a button beside each password field that shows what is typed, and the keyboard where
// something has to be corrected.
"use strict";

for (const field of document.querySelectorAll("[data-password]")) {
  const row = document.createElement("div");
  row.className = "password";
  field.replaceWith(row);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button-plain";
  button.setAttribute("aria-controls", field.id);
  row.append(field, button);
  if (field.autofocus) field.focus();

  const show = (visible) => {
    field.type = visible ? "text" : "password";
    button.textContent = visible ? "Hide" : "Show";
    button.setAttribute("aria-label", visible ? "Hide the password" : "Show the password");
  };
  show(false);
  button.addEventListener("click", () => show(field.type === "password"));
  // As text it could end up among the browser's suggestions for other forms.
  field.form.addEventListener("submit", () => show(false));
}

document.querySelector("[aria-invalid='true']")?.focus();
