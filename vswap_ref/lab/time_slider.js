// The code time slider's front-end: choose a function, move through the stages, see its text or what has changed.
// The model has `history` (see time_slider.py), `name` and `stage`, the place in the list of stages.

let numberOfSliders = 0;

function versionAt(history, name, stage) {
  const versions = (history.functions[name] || []).filter((version) => version.at <= stage);
  const version = versions[versions.length - 1];
  return version && version.text ? version : null;
}

// Lines of two texts as [mark, line], mark " ", "-" or "+": a longest common subsequence.
function diffLines(before, after) {
  const a = before ? before.split("\n") : [], b = after ? after.split("\n") : [];
  const length = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const lines = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { lines.push([" ", a[i]]); i++; j++; }
    else if (i < a.length && (j === b.length || length[i + 1][j] >= length[i][j + 1])) lines.push(["-", a[i++]]);
    else lines.push(["+", b[j++]]);
  }
  return lines;
}

function create(tag, properties = {}, children = []) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const history = model.get("history"), last = history.stages.length - 1, id = `time-slider-${++numberOfSliders}`;
  const names = Object.keys(history.functions);
  const options = names.map((value) => create("option", { value, textContent: value }));
  const few = names.length <= 12;
  const name = few ? create("select", {}, options)
    : create("input", { type: "search", autocomplete: "off", spellcheck: false });
  name.value = model.get("name");
  if (!few) name.setAttribute("list", `${id}-names`);
  const list = create("datalist", { id: `${id}-names` }, few ? [] : options);
  const slider = create("input", { type: "range", min: 0, max: last, step: 1, value: model.get("stage") });
  const back = create("button", { type: "button", textContent: "◀ change before" });
  const forth = create("button", { type: "button", textContent: "change after ▶" });
  const diff = create("input", { type: "checkbox", checked: Boolean(model.get("diff")) });
  const title = create("p", { className: "ts-title" }), owner = create("p", { className: "ts-owner" });
  owner.setAttribute("aria-live", "polite");
  const code = create("pre", { className: "ts-code", tabIndex: 0 });
  code.setAttribute("aria-label", "text of the function");
  el.classList.add("time-slider");
  el.append(
    create("div", { className: "ts-row" }, [create("label", {}, ["Function ", name]), list,
      create("label", {}, [diff, " what has changed since the stage before"])]),
    create("div", { className: "ts-row" }, [create("label", { className: "ts-stages" }, ["Stage ", slider]), back, forth]),
    title, owner, code);

  const changes = () => (history.functions[name.value] || []).map((version) => version.at);

  function describe(stage, version) {
    const known = history.functions[name.value];
    if (!known) {
      const close = names.filter((other) => name.value && other.includes(name.value)).slice(0, 8);
      return `No function of this name.${close.length ? ` Names with it: ${close.join(", ")}` : ""}`;
    }
    const label = (place) => `stage ${history.stages[place].id}, ${history.stages[place].title.replace(/\.$/, "")}`;
    if (!version) {
      const gone = known.filter((item) => item.at <= stage).pop();
      return gone ? `Gone since ${label(gone.at)}.` : `Comes with ${label(known[0].at)}.`;
    }
    const parts = [`${version.module}, written by ${label(version.at)}.`];
    if (version.was) parts.push(`Called ${version.was} before.`);
    if (version.at < stage) parts.push("Not changed by this stage.");
    return parts.join(" ");
  }

  function show() {
    const stage = Number(slider.value), version = versionAt(history, name.value, stage);
    const { id: stageId, title: stageTitle } = history.stages[stage];
    title.textContent = `Stage ${stageId}: ${stageTitle}`;
    slider.setAttribute("aria-valuetext", title.textContent);
    owner.textContent = describe(stage, version);
    const was = version && version.at === stage && version.was ? version.was : name.value;
    const before = stage > 0 ? versionAt(history, was, stage - 1) : null;
    const text = version ? version.text : "";
    const lines = diff.checked && stage > 0 ? diffLines(before ? before.text : "", text)
      : (text ? text.split("\n") : []).map((line) => [" ", line]);
    const kinds = { "+": "ts-added", "-": "ts-removed", " ": "" };
    code.replaceChildren(...lines.map(([mark, line]) =>
      create("span", { className: kinds[mark], textContent: `${diff.checked ? `${mark} ` : ""}${line}\n` })));
    back.disabled = !changes().some((place) => place < stage);
    forth.disabled = !changes().some((place) => place > stage);
    model.set("name", name.value);
    model.set("stage", stage);
    model.save_changes();
  }

  function go(places, pick) {
    if (places.length) slider.value = pick(...places);
    show();
  }

  back.addEventListener("click", () => go(changes().filter((place) => place < Number(slider.value)), Math.max));
  forth.addEventListener("click", () => go(changes().filter((place) => place > Number(slider.value)), Math.min));
  for (const control of [name, slider, diff]) control.addEventListener("input", show);
  show();
}

export default { render };
