// The page of cai_jax.chat --serve. What models and people write is shown as text alone.
"use strict";

const byId = (id) => document.getElementById(id);
const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);
const SIDES = ["A", "B"];
let messages = []; // of the dialogue so far
let running = null; // what stops the answer that is being written
let vote = null; // the vote that is waited for
let principles = [];

/** Asks for an action; gives its events as they come. */
async function* events(action, request, signal) {
  const response = await fetch(action, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.error) throw new Error(event.error);
      yield event;
    }
    if (done) return;
  }
}

function tell(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

function add(parent, tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.append(element);
  return element;
}

/** What may be pressed: one answer at a time, and a vote before the next turn. */
function enable() {
  byId("send").disabled = Boolean(running || vote);
  byId("stop").disabled = !running;
  for (const button of document.querySelectorAll(".revise, .vote button")) {
    button.disabled = Boolean(running);
  }
}

/** Runs what can be stopped; returns whether it came to its end. */
async function run(work) {
  running = new AbortController();
  enable();
  try {
    await work(running.signal);
    return true;
  } catch (error) {
    const stopped = error.name === "AbortError";
    tell(stopped ? "Stopped." : `It did not work: ${error.message}`, !stopped);
    return false;
  } finally {
    running = null;
    enable();
  }
}

async function ask(said) {
  const dialogue = [...messages, { role: "user", content: said }];
  const turn = copyOf("turn");
  turn.querySelector(".said").textContent = said;
  const answers = SIDES.map((side) => {
    const answer = copyOf("answer");
    answer.querySelector("h2").textContent = `Answer ${side}`;
    answer.setAttribute("aria-label", `Answer ${side}`);
    turn.querySelector(".answers").append(answer);
    return answer;
  });
  byId("dialogue").append(turn);
  tell("The answers are being written.");
  let duel = "";
  const whole = {};
  const ended = await run(async (signal) => {
    for await (const event of events("duel", { messages: dialogue }, signal)) {
      if (event.duel) duel = event.duel;
      if (!event.of) continue;
      const text = answers[SIDES.indexOf(event.of)].querySelector(".text");
      if (event.whole === undefined) {
        text.append(event.text);
      } else {
        whole[event.of] = event.whole;
        text.textContent = event.whole + (event.finished ? "" : " …");
      }
    }
  });
  if (!ended) {
    turn.remove();
    if (!byId("said").value) byId("said").value = said;
    byId("said").focus();
    return;
  }
  tell("Both answers are there. Which is better?");
  offerVote(turn, answers, duel, dialogue, whole);
  answers.forEach((answer, i) => offerRevision(answer, SIDES[i], dialogue, whole[SIDES[i]]));
  enable();
}

function offerVote(turn, answers, duel, dialogue, whole) {
  const row = turn.querySelector(".vote");
  vote = async (better) => {
    await run(async (signal) => {
      for await (const event of events("vote", { duel, better }, signal)) {
        answers.forEach((answer, i) => {
          const side = SIDES[i];
          answer.querySelector("h2").textContent = `Answer ${side}: ${event.speakers[side]}`;
          answer.classList.toggle("better", side === better);
        });
        tell(event.kept ? "Your vote is kept." : "Nothing was kept of it.");
        messages = [...dialogue, { role: "assistant", content: whole[better] ?? whole.A }];
        vote = null;
        row.replaceChildren();
        add(row, "span", better === "equal" ? "About equal; A goes on." : `${better} is better.`);
        byId("said").focus();
      }
    });
  };
  const choices = [["A", "A is better"], ["B", "B is better"], ["equal", "About equal"]];
  for (const [better, label] of choices) {
    const button = add(row, "button", label);
    button.type = "button";
    button.addEventListener("click", () => vote(better));
  }
  row.querySelector("button").focus();
}

function offerRevision(answer, side, dialogue, response) {
  if (!principles.length || !response) return;
  const button = answer.querySelector(".revise");
  button.textContent = `Criticise and revise ${side}`;
  button.hidden = false;
  button.addEventListener("click", () => revise(answer, dialogue, response));
}

async function revise(answer, dialogue, response) {
  const shown = answer.querySelector(".revision");
  shown.replaceChildren();
  const parts = {};
  const request = { messages: dialogue, response, principle: byId("principle").value };
  tell("The critique is being written.");
  const ended = await run(async (signal) => {
    for await (const event of events("revise", request, signal)) {
      if (event.principle) {
        const { critique, revision } = principles.find((p) => p.id === event.principle);
        add(shown, "h3", `Principle ${event.principle}, applied by ${event.critic}`);
        add(shown, "p", `${critique}\n${revision}`).className = "note";
        continue;
      }
      if (!parts[event.of]) {
        add(shown, "h3", event.of === "critique" ? "Critique" : "Revision");
        parts[event.of] = add(shown, "p", "");
      }
      if (event.whole === undefined) {
        parts[event.of].append(event.text);
      } else {
        parts[event.of].textContent = event.whole;
        if (event.dropped) {
          add(shown, "p", `A run would drop this: ${event.dropped}.`).className = "note";
        }
      }
    }
  });
  if (ended) tell(parts.revision ? "Critique and revision are there." : "There is no revision.");
}

function begin() {
  if (running) running.abort();
  messages = [];
  vote = null;
  byId("dialogue").replaceChildren();
  tell("");
  enable();
  byId("said").focus();
}

function showPrinciple() {
  const chosen = principles.find((p) => p.id === byId("principle").value);
  byId("request").textContent = chosen ? `${chosen.critique} ${chosen.revision}` : "";
}

async function open() {
  for await (const about of events("about", {})) {
    const order = about.models.length > 1 ? "in an order drawn for each answer" : "twice";
    const kept = about.votes ? `Votes are added to ${about.votes}.` : "Votes are not kept (--votes).";
    byId("about").textContent = `${about.models.join(" and ")}, ${order}. ${kept}`;
    principles = about.principles;
    byId("under").hidden = !principles.length;
    for (const { id } of principles) {
      const option = add(byId("principle"), "option", id);
      option.value = id;
    }
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = byId("said").value.trim();
  if (!said || running || vote) return;
  byId("said").value = "";
  ask(said);
});
byId("said").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("new").addEventListener("click", begin);
byId("principle").addEventListener("change", showPrinciple);
byId("under").addEventListener("submit", (event) => event.preventDefault());
open().catch((error) => tell(`It did not work: ${error.message}`, true));
