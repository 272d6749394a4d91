// One question after the other. The next questions and their pictures are loaded while a person looks at a question.
import { ask, byId, element } from "./server.js";
import { Unsent } from "./unsent.js";
import { ValuePicker, valuesOf } from "./values.js";

const AHEAD = 5; // questions that are asked for at once
const main = byId("review");
const { sample, mode, shop, reviewer } = main.dataset;
const suggestions = main.dataset.suggestions === "yes";
const gold = main.dataset.gold === "yes"; // asks for values; no answer says that a value is wrong
const KEYS = { y: "yes", n: "no", v: "other", h: "none", c: "cannot_tell" };
const WORDS = {
  yes: suggestions ? "accepted" : "yes",
  no: suggestions ? "refused" : "no",
  none: "has none",
  cannot_tell: "cannot tell",
};

let queue = []; // questions, the first one is shown
let answered = new Set(); // items that were answered here and that the server may still give
let looked = 0; // milliseconds for which the shown question was looked at
let since = 0;
let number = 0; // of the shown picture

const picker = new ValuePicker(
  (values) => answer("other", values),
  () => byId("title").focus(),
);

const unsent = new Unsent(`unsent/${reviewer}/${sample}/${mode}`, {
  onSaved: (verdict, content) => {
    notice("");
    byId("said").textContent = `Saved: ${inWords({ ...verdict, right_values: content.right_values })}.`;
    showState(content.state);
  },
  onRefused: (verdict, message) => {
    answered.delete(verdict.item_id);
    notice(`Your verdict was not kept: ${message}`);
    refill();
  },
  onWaiting: (count, message) => {
    notice(`Not saved yet: ${count} verdict${count > 1 ? "s" : ""} (${message}). They are kept in this browser and sent again.`);
  },
});

const inWords = (verdict) =>
  verdict.answer === "other" ? `the right value is ${verdict.right_values.join(", ")}` : WORDS[verdict.answer];

function notice(text) {
  byId("notice").textContent = text;
}

function showState(state) {
  byId("bar").max = Math.max(state.items, 1);
  byId("bar").value = state.settled;
  const mine = mode === "adjudicate" ? "" : `You: ${state.mine} judged, ${state.left} left. `;
  byId("numbers").textContent =
    `${mine}All: ${state.settled} of ${state.items} settled, ${state.disputed} disputed, ${state.open} open.`;
}

// --- loading -----------------------------------------------------------------------------------------------------

let refilling = null;
function refill() {
  refilling ??= load().catch(failed).finally(() => {
    refilling = null;
  });
  return refilling;
}

async function load() {
  const path = `/api/samples/${encodeURIComponent(sample)}`;
  const wanted = AHEAD + unsent.all().length + queue.length;
  const content =
    mode === "adjudicate"
      ? await ask("GET", `${path}/disputes`)
      : await ask("GET", `${path}/next?limit=${wanted}&shop=${encodeURIComponent(shop)}`);
  showState(content.state);
  const wasEmpty = !queue.length;
  const here = new Set(queue.map((question) => question.item_id));
  const waiting = new Set(unsent.all().map((verdict) => verdict.item_id));
  const fresh = content.questions.filter(({ item_id }) => ![here, waiting, answered].some((set) => set.has(item_id)));
  queue.push(...fresh);
  if (wasEmpty) show(content);
  preload();
}

function failed(problem) {
  notice(`The questions could not be loaded (${problem.message}). Trying again.`);
  setTimeout(refill, 2000);
}

function preload() {
  for (const next of queue.slice(1, 3)) {
    if (next.pictures.length) new Image().src = next.pictures[0];
    valuesOf(next.attribute).catch(() => undefined);
  }
}

// --- showing -----------------------------------------------------------------------------------------------------

// content: the server's answer, if it has just told the progress
function show(content) {
  const question = queue[0];
  byId("card").hidden = !question;
  byId("done").hidden = Boolean(question) || !content;
  if (!question) return content && showDone(content);
  picker.hide();
  byId("answers").hidden = false;
  showText("title", question.title || "(no title)", question.marked.title);
  byId("category").textContent = [question.category, question.product_id].filter(Boolean).join(" · ");
  showText("description", question.description, question.marked.description);
  showQuestion(question);
  showVerdicts(question.verdicts ?? []);
  showPictures(question.pictures);
  looked = 0;
  since = performance.now();
  byId("title").focus({ preventScroll: true });
  byId("description").scrollTop = 0;
  document.querySelector("#description mark")?.scrollIntoView({ block: "nearest" });
  window.scrollTo(0, 0);
  return undefined;
}

// parts: the text before the evidence, the evidence, the text after it; undefined if the text does not have it
function showText(id, text, parts) {
  const [before, evidence, after] = parts ?? [text];
  byId(id).replaceChildren(before, ...(parts ? [element("mark", evidence), after] : []));
}

function showQuestion(question) {
  const asked = byId("question");
  if (question.value) {
    const before = suggestions ? `${question.attribute}: ` : `${question.attribute} is `;
    const after = suggestions ? ". Accept this suggestion?" : ". Is it correct?";
    asked.replaceChildren(before, element("strong", question.value, { dir: "auto" }), after);
  } else {
    asked.replaceChildren(`What is the ${question.attribute}?`);
  }
  byId("evidence").textContent = question.evidence;
  byId("evidence").hidden = !question.evidence;
  button("yes").hidden = !question.value;
  button("no").hidden = gold;
  button("none").setAttribute("aria-label", `Has none: the product has no ${question.attribute}`);
  button("no").firstElementChild.textContent = question.value ? (suggestions ? "Refuse" : "No") : "None of the values";
}

const button = (name) => document.querySelector(`[data-answer=${name}]`);

function showVerdicts(verdicts) {
  byId("verdicts").hidden = !verdicts.length;
  byId("verdicts").replaceChildren(
    ...verdicts.map((verdict) => {
      const line = element("li", "", { dir: "auto" });
      line.append(element("strong", verdict.reviewer), `: ${inWords(verdict)}`);
      return line;
    }),
  );
}

function showPictures(pictures) {
  const buttons = pictures.map((_, index) => {
    const made = element("button", String(index + 1), { type: "button", "aria-label": `Picture ${index + 1}` });
    made.addEventListener("click", () => showPicture(pictures, index));
    return made;
  });
  byId("thumbs").replaceChildren(...(buttons.length > 1 ? buttons : []));
  showPicture(pictures, 0);
}

function showPicture(pictures, index) {
  const picture = byId("picture");
  number = index;
  byId("nopicture").hidden = pictures.length > 0;
  byId("nopicture").textContent = "The product has no picture.";
  picture.hidden = !pictures.length;
  if (!pictures.length) return;
  picture.alt = `Picture ${index + 1} of ${pictures.length} of the product`;
  picture.src = pictures[index];
  [...byId("thumbs").children].forEach((thumb, at) => thumb.setAttribute("aria-pressed", String(at === index)));
}

byId("picture").addEventListener("error", async () => {
  const missing = byId("picture").getAttribute("src");
  const reason = await ask("GET", missing).then(() => "", (problem) => problem.message);
  if (byId("picture").getAttribute("src") !== missing) return;
  byId("picture").hidden = true;
  byId("nopicture").hidden = false;
  byId("nopicture").textContent = `This picture cannot be shown: ${reason || "it could not be loaded"}.`;
});

function showDone(content) {
  const others = content.for_others ?? 0;
  const left = others ? ` ${others} disputed item${others > 1 ? "s" : ""} that you judged wait for another person.` : "";
  const what = mode === "adjudicate" ? "No disputed item is left for you." : "You have judged every item that needs you.";
  byId("done-text").textContent = what + left;
  byId("done-title").focus();
}

// --- answering ---------------------------------------------------------------------------------------------------

function answer(name, values = []) {
  const question = queue.shift();
  if (!question) return;
  looked += document.hidden ? 0 : performance.now() - since;
  answered.add(question.item_id);
  const verdict = {
    item_id: question.item_id,
    answer: name,
    right_values: values,
    adjudicates: mode === "adjudicate",
    seconds: Math.min(Math.round(looked) / 1000, 86400),
  };
  unsent.add(verdict);
  show();
  if (queue.length < 3) refill();
  else preload();
}

function choose(name) {
  const question = queue[0];
  if (!question || button(name).hidden) return;
  if (name !== "other") {
    answer(name);
    return;
  }
  byId("answers").hidden = true;
  picker.open(question.attribute, question.cardinality, question.value, question.language).catch((problem) => {
    byId("answers").hidden = false;
    notice(`The values could not be loaded: ${problem.message}`);
  });
}

picker.cancelled = () => {
  byId("answers").hidden = false;
  byId("title").focus();
};

async function undo() {
  try {
    await unsent.flush();
    const content = await ask("POST", `/api/samples/${encodeURIComponent(sample)}/undo`, {
      adjudicates: mode === "adjudicate",
    });
    const again = content.question;
    answered.delete(again.item_id);
    showState(content.state);
    queue = mode === "adjudicate" ? [] : [again, ...queue.filter((question) => question.item_id !== again.item_id)];
    if (queue.length) show();
    else await refill(); // a disputed item comes with both verdicts
    const applied = content.applied ? ` It was applied already (${content.applied}) and stays so until you answer again.` : "";
    byId("said").textContent = `Your last verdict is taken back.${applied}`;
    notice("");
  } catch (problem) {
    notice(problem.message);
  }
}

byId("answers").addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-answer]");
  if (pressed) choose(pressed.dataset.answer);
});
byId("undo").addEventListener("click", undo);

const keys = byId("keys");
keys.checked = localStorage.getItem("keys") !== "off";
keys.addEventListener("change", () => localStorage.setItem("keys", keys.checked ? "on" : "off"));
document.addEventListener("keydown", (event) => {
  if (!keys.checked || picker.isOpen || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const pictures = queue[0]?.pictures ?? [];
  const key = event.key.toLowerCase();
  if (KEYS[key]) choose(KEYS[key]);
  else if (key === "u") undo();
  else if (event.key === "ArrowRight" && pictures.length > 1) showPicture(pictures, (number + 1) % pictures.length);
  else return;
  event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) looked += performance.now() - since;
  since = performance.now();
});

unsent.flush().then(refill);
if (unsent.all().length) refill();
