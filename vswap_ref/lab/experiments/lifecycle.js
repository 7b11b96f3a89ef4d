(() => {
  // A board of the states of an entry, a button for each operation, and what has happened.  DATA: lifecycle.py, Lives.
  const data = DATA, { names, rows, columns } = data;
  const create = (tag, properties = {}, children = []) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const player = (el) => {
    let state = 0, number = 0;
    const reached = new Set();
    const table = create("table"), log = create("ol"), goals = create("p"), buttons = create("p");
    const head = create("tr", {}, [create("th")]);
    for (let n = 0; n < columns; n++) head.append(create("th", { textContent: `N = ${n}`, style: "min-width:10.5em" }));
    table.append(head);
    const cells = rows.map((name) => {
      const line = create("tr", {}, [create("th", { textContent: name, style: "text-align:left;white-space:nowrap;padding-right:1em" })]);
      const places = Array.from({ length: columns }, () => create("td", { style: "height:2.2em;text-align:center" }));
      line.append(...places);
      table.append(line);
      return places;
    });
    const controls = names.map((name) => {
      const button = create("button", { type: "button", textContent: name, style: "margin:.15em;font-family:monospace" });
      button.onclick = () => {
        const [answer, next] = data.steps[state][name];
        state = next;
        log.prepend(create("li", { value: ++number, textContent: `${name}: ${answer}; ${data.states[state].text}` }));
        show();
      };
      return button;
    });
    buttons.append(...controls);
    log.setAttribute("aria-live", "polite");
    log.style.cssText = "max-height:9em;overflow:auto";
    const show = () => {
      for (const line of cells) for (const place of line) {
        place.textContent = "";
        place.style.outline = "1px solid #88888855";
        place.style.background = "none";
      }
      const { text, cell: [row, column] } = data.states[state], here = cells[row][column];
      here.textContent = text;
      here.style.outline = "2px solid #1f9bb5";
      here.style.background = "#1f9bb533";
      controls.forEach((button) => { button.disabled = !(button.textContent in data.steps[state]); });
      for (const goal of data.goals) if (goal.states.includes(state)) reached.add(goal.text);
      goals.textContent = "Find: " + data.goals.map(({ text }) => (reached.has(text) ? "\u2713 " : "\u2610 ") + text).join("; ");
    };
    el.append(table, buttons, goals, log);
    show();
  };
  for (const el of document.querySelectorAll(".lifecycle-player:not([data-on])")) {
    el.setAttribute("data-on", "");
    player(el);
  }
})();
