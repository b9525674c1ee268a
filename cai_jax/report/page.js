"use strict";
// Shows transcripts a few at a time. All texts are set as text: none is ever read as HTML.
(function () {
  const source = document.getElementById("transcripts-data");
  const form = document.getElementById("find");
  if (!source || !form) return;
  const data = JSON.parse(source.textContent);
  const list = document.getElementById("found");
  const told = document.getElementById("told");
  const more = document.getElementById("more");
  const field = (name) => form.elements.namedItem(name);
  const STEP = 20;
  let chosen = [];
  let shown = 0;

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // Words that stayed, came or went; or a whole text.
  function written(text) {
    if (typeof text === "string") return [document.createTextNode(text)];
    return text.map((run) => {
      const words = run.slice(1);
      if (run[0] === "=") return document.createTextNode(words);
      return element(run[0] === "+" ? "ins" : "del", words);
    });
  }

  function plain(text) {
    if (typeof text === "string") return text;
    return text.filter((run) => run[0] !== "-").map((run) => run.slice(1)).join("");
  }

  function turn(who, text, className) {
    const made = element("div", undefined, "turn " + (className || ""));
    made.append(element("span", who, "who"), ...written(text));
    return made;
  }

  function aside(who, text) {
    const made = turn(who, text);
    made.classList.add("about");
    return made;
  }

  function principle(id) {
    const text = data.principles[id];
    return text ? id + ": " + text : id;
  }

  function reasons(rows, thoughts) {
    const box = element("details");
    box.append(element("summary", "Why: what it said under each principle"));
    const scroll = element("div", undefined, "scroll");
    const table = element("table");
    table.append(element("caption", "P(first is better) under each principle, in both orders"));
    const head = element("tr");
    const names = ["principle", "first shown as (A)", "first shown as (B)", "label"];
    names.forEach((name, at) => {
      const cell = element("th", name, at ? "n" : "");
      cell.scope = "col";
      head.append(cell);
    });
    const top = element("thead");
    top.append(head);
    const body = element("tbody");
    for (const [id, ...values] of rows) {
      const row = element("tr");
      const first = element("th", principle(id));
      first.scope = "row";
      row.append(first, ...values.map((value) => element("td", value.toFixed(2), "n")));
      body.append(row);
    }
    table.append(top, body);
    scroll.append(table);
    box.append(scroll);
    for (const [id, order, text] of thoughts || []) box.append(aside(id + ", " + order, text));
    return box;
  }

  function card(one) {
    const kind = data.kinds[one.kind];
    const item = element("li", undefined, "card");
    const about = [one.id, ...one.tags];
    if (one.score !== undefined) about.push(kind.score + ": " + one.score);
    if (one.gap !== undefined) about.push(kind.gap + " " + one.gap);
    item.append(element("h3", about.join(" · ")));
    for (const [role, text] of one.prompt) item.append(turn(role, text, "prompt"));
    const texts = element("div", undefined, "texts");
    for (const each of one.texts) {
      const column = element("div");
      if (each.principle) column.append(aside("principle", principle(each.principle)));
      if (each.critique) column.append(aside("critique", each.critique));
      column.append(turn(each.of, each.text));
      if (each.unjudged) column.append(aside("cut off there, and not judged", each.unjudged));
      if (each.note) column.append(element("div", each.note, "about"));
      texts.append(column);
    }
    item.append(texts);
    if (one.reasons) item.append(reasons(one.reasons, one.thoughts));
    return item;
  }

  function hay(one) {
    if (one.hay === undefined) {
      const texts = one.texts.flatMap((t) => [plain(t.text), t.critique || "", t.principle || "", t.unjudged || ""]);
      const asked = one.prompt.map((message) => message[1]);
      const why = (one.reasons || []).map((reason) => reason[0]);
      const thought = (one.thoughts || []).map((each) => each[2]);
      one.hay = [one.id, ...one.tags, ...asked, ...texts, ...why, ...thought].join("\n").toLowerCase();
    }
    return one.hay;
  }

  function limit(name) {
    const value = field(name).value;
    return value === "" ? null : Number(value);
  }

  function choose() {
    const words = field("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = field("kind").value;
    const tag = field("tag").value;
    const [low, high, gap] = ["low", "high", "gap"].map(limit);
    chosen = data.transcripts.filter(
      (one) =>
        one.kind === kind &&
        (!tag || one.tags.includes(tag)) &&
        (low === null || one.score >= low) &&
        (high === null || one.score <= high) &&
        (gap === null || one.gap >= gap) &&
        words.every((word) => hay(one).includes(word)),
    );
    const [by, down] = field("order").value.split(" ");
    if (by) {
      chosen.sort((a, b) => (down ? -1 : 1) * ((a[by] ?? -Infinity) - (b[by] ?? -Infinity)));
    }
    shown = 0;
    list.replaceChildren();
    show();
  }

  function show() {
    const next = chosen.slice(shown, shown + STEP);
    const cards = next.map(card);
    list.append(...cards);
    shown += next.length;
    const [kept, there] = data.counts[field("kind").value];
    const rest = there > kept ? " Of " + there + " the page holds " + kept + "." : "";
    told.textContent = chosen.length + " found, " + shown + " shown." + rest;
    more.hidden = shown >= chosen.length;
    return cards[0];
  }

  function option(value, text) {
    const made = element("option", text);
    made.value = value;
    return made;
  }

  // What can be asked of a kind: its tags, and what its score and its disagreement are.
  function fit() {
    const kind = field("kind").value;
    const about = data.kinds[kind];
    const counts = new Map();
    for (const one of data.transcripts) {
      if (one.kind === kind) for (const t of one.tags) counts.set(t, (counts.get(t) || 0) + 1);
    }
    const tags = [...counts].sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const all = option("", "all");
    field("tag").replaceChildren(all, ...tags.map(([t, n]) => option(t, t + " (" + n + ")")));
    document.getElementById("score-name").textContent = about.score;
    document.getElementById("gap-name").textContent = about.gap + " at least";
    const gaps = data.transcripts.some((one) => one.kind === kind && one.gap !== undefined);
    field("gap").parentElement.hidden = !gaps;
    const orders = [["", "as made"], ["score", "lowest score first"], ["score d", "highest score first"]];
    if (gaps) orders.push(["gap d", "most disagreement first"]);
    field("order").replaceChildren(...orders.map(([value, text]) => option(value, text)));
    for (const name of ["low", "high", "gap"]) field(name).value = "";
  }

  let waiting;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    if (event.target.name === "marks") {
      list.classList.toggle("plain", !event.target.checked);
      return;
    }
    if (event.target.name === "kind") fit();
    waiting = setTimeout(choose, event.target.name === "text" ? 150 : 0);
  });
  more.addEventListener("click", () => {
    const first = show();
    if (first) {
      first.tabIndex = -1;
      first.focus();
    }
  });
  const kinds = Object.entries(data.kinds);
  if (!kinds.length) return;
  field("kind").replaceChildren(...kinds.map(([value, about]) => option(value, about.title)));
  document.getElementById("transcripts").hidden = false;
  fit();
  choose();
})();
