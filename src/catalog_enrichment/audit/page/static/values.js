// The search for the right value: a combobox over an attribute's values, their aliases and other languages.
import { ask, byId, element } from "./server.js";

const SHOWN = 50; // options that are listed at once; typing narrows them
const PAUSE_MS = 150; // after the last key, before the server is asked how a number is read
const PLACEHOLDERS = { closed: "Type to search", number: "A number, with its unit if it has another", text: "Type the value" };
const known = new Map(); // attribute -> promise of its values

export function valuesOf(attribute) {
  if (!known.has(attribute)) {
    const loaded = ask("GET", `/api/attributes/${encodeURIComponent(attribute)}`).then(prepared);
    loaded.catch(() => known.delete(attribute)); // a later try asks again
    known.set(attribute, loaded);
  }
  return known.get(attribute);
}

export function prepared(content) {
  for (const entry of content.values) {
    const spellings = [entry.value, ...entry.aliases.map((alias) => alias[1])];
    entry.keys = spellings.map((spelling) => [plain(spelling), words(spelling)]);
  }
  return content;
}

// A text with its signs, which tell values apart: A+ is not A.
function plain(text) {
  return text.normalize("NFKC").toLowerCase().replace(/\s+/gu, " ").trim();
}

// The words of a text, without signs, and without accents, which not every keyboard has.
function words(text) {
  const letters = text.normalize("NFKD").replace(/\p{M}+/gu, "").toLowerCase();
  return letters.replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

// Values in the order of how well they match: equal or beginning with their signs; by their words equal, beginning, a
// word's beginning, anywhere.
export function matching(values, typed) {
  const [exact, key] = [plain(typed), words(typed)];
  const rank = ([spelling, its]) => {
    if (spelling === exact) return 0;
    if (spelling.startsWith(exact)) return 1;
    if (!key) return spelling.includes(exact) ? 5 : 9; // nothing but signs
    if (its === key) return 2;
    if (its.startsWith(key)) return 3;
    if (its.includes(` ${key}`)) return 4;
    return its.includes(key) ? 5 : 9;
  };
  const ranked = values.map((entry) => {
    const ranks = entry.keys.map(rank);
    const best = Math.min(...ranks);
    const found = ranks.indexOf(best);
    const order = entry.value === typed.trim() ? -1 : best; // I is not dotless i, whatever their small letters are
    return { entry, best, order, alias: found > 0 ? entry.aliases[found - 1] : null };
  });
  return ranked.filter((entry) => entry.best < 9).sort((a, b) => a.order - b.order);
}

export class ValuePicker {
  // done(values) is called with the chosen values, cancelled() when the person goes back
  constructor(done, cancelled) {
    this.done = done;
    this.cancelled = cancelled;
    this.form = byId("right");
    this.input = byId("search");
    this.list = byId("options");
    this.input.addEventListener("input", () => this.show());
    this.input.addEventListener("keydown", (event) => this.onKey(event));
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
    byId("cancel").addEventListener("click", () => this.close());
  }

  get isOpen() {
    return !this.form.hidden;
  }

  // language: the product's, by which numbers are read
  async open(attribute, cardinality, wrong, language) {
    const content = await valuesOf(attribute);
    this.attribute = attribute;
    this.language = language ?? "";
    this.values = content.values.filter((entry) => entry.value !== wrong);
    this.typed = content.kind !== "closed"; // a number or a text: what is typed is the value
    this.many = cardinality === "many";
    this.chosen = [];
    const unit = content.unit ? `, in ${content.unit}` : "";
    byId("search-label").textContent = `${this.many ? "All right values" : "The right value"} of ${attribute}${unit}`;
    byId("unit").textContent = content.unit;
    byId("unit").hidden = !content.unit;
    this.input.placeholder = PLACEHOLDERS[content.kind];
    byId("save").hidden = !this.many;
    this.input.value = "";
    this.form.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.show();
    this.input.focus();
    this.form.scrollIntoView({ block: "nearest" });
  }

  hide() {
    this.form.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  close() {
    this.hide();
    this.cancelled();
  }

  show() {
    this.found = matching(this.values, this.input.value);
    const own = this.input.value.trim();
    if (this.typed && own) this.found.unshift({ entry: { value: own, aliases: [] }, alias: null });
    this.active = this.input.value || !this.many ? 0 : -1;
    const options = this.found.slice(0, SHOWN).map(({ entry, alias }, number) => {
      const option = element("li", entry.value, { role: "option", id: `option-${number}`, dir: "auto" });
      option.setAttribute("aria-selected", String(this.chosen.includes(entry.value)));
      if (alias) option.append(" ", element("small", `${alias[1]} (${alias[0]})`));
      option.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the field
      option.addEventListener("click", () => this.pick(entry.value));
      return option;
    });
    this.list.replaceChildren(...options);
    const more = this.found.length - options.length;
    const count = this.typed ? "Type the value" : `${this.found.length} of ${this.values.length} values`;
    byId("matches").textContent = more > 0 ? `${count}, the first ${options.length} are shown: type more` : count;
    clearTimeout(this.waiting);
    if (this.typed && own) this.waiting = setTimeout(() => this.read(own), PAUSE_MS);
    this.mark();
    this.showChosen();
  }

  // Says what a typed number or text is kept as, or why it is no value.
  async read(own) {
    const asked = new URLSearchParams({ text: own, language: this.language });
    const path = `/api/attributes/${encodeURIComponent(this.attribute)}/reading?${asked}`;
    const found = await ask("GET", path).catch(() => null);
    if (!found || !this.isOpen || this.input.value.trim() !== own) return;
    byId("matches").textContent = found.value ? `Is kept as ${found.value}` : `This is no value: ${found.why}`;
  }

  showChosen() {
    const chips = this.chosen.map((value) => {
      const item = element("li", "");
      const chip = element("button", `${value} ×`, { type: "button", "aria-label": `Take out ${value}` });
      chip.addEventListener("click", () => this.pick(value));
      item.append(chip);
      return item;
    });
    byId("chosen").replaceChildren(...chips);
    byId("chosen").hidden = !chips.length;
  }

  mark() {
    [...this.list.children].forEach((option, number) => {
      option.classList.toggle("active", number === this.active);
      if (number === this.active) option.scrollIntoView({ block: "nearest" });
    });
    const active = this.list.children[this.active];
    if (active) this.input.setAttribute("aria-activedescendant", active.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  onKey(event) {
    const last = this.list.children.length - 1;
    if (event.key === "ArrowDown") this.active = Math.min(this.active + 1, last);
    else if (event.key === "ArrowUp") this.active = Math.max(this.active - 1, 0);
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return this.prevent(event, () => this.save());
    else if (event.key === "Enter") {
      const option = this.found[this.active];
      return this.prevent(event, () => option && this.pick(option.entry.value));
    } else return undefined;
    return this.prevent(event, () => this.mark());
  }

  prevent(event, act) {
    event.preventDefault();
    act();
  }

  pick(value) {
    if (!this.many) {
      this.hide();
      this.done([value]);
      return;
    }
    this.chosen = this.chosen.includes(value) ? this.chosen.filter((chosen) => chosen !== value) : [...this.chosen, value];
    this.input.value = "";
    this.show();
    this.input.focus();
  }

  save() {
    if (!this.chosen.length) {
      byId("matches").textContent = "Choose at least one value";
      return;
    }
    this.hide();
    this.done([...this.chosen].sort());
  }
}
