// The filter of the page of kernel functions: hides table rows without the typed words, and tables without rows.
const filter = document.querySelector(".function-filter");
const input = filter.querySelector("input");
const rows = [...document.querySelectorAll("table.function-index tbody tr")];
const texts = rows.map((row) => row.textContent.toLowerCase());

function apply() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row, at) => {
    row.hidden = !words.every((word) => texts[at].includes(word));
    shown += !row.hidden;
  });
  for (const section of document.querySelectorAll("section:has(> * table.function-index), section:has(> table.function-index)"))
    section.hidden = words.length > 0 && !section.querySelector("tbody tr:not([hidden])");
  filter.querySelector("output").textContent = words.length ? `${shown} of ${rows.length}` : "";
  history.replaceState(null, "", words.length ? `?q=${encodeURIComponent(input.value)}` : location.pathname);
}

filter.hidden = false;
input.value = new URLSearchParams(location.search).get("q") ?? "";
input.addEventListener("input", apply);
apply();
