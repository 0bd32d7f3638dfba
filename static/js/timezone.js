// The browser's own timezone, wherever nothing else has been chosen.
"use strict";

for (const select of document.querySelectorAll("select[data-guess-timezone]")) {
  const guess = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (select.value === "UTC" && [...select.options].some((option) => option.value === guess)) select.value = guess;
}
