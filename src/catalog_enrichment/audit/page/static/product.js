// Requests about one product: correct, remove, undo, and taking a request back.
import { ask, byId } from "./server.js";
import { ValuePicker } from "./values.js";

const product = byId("product").dataset.product;
let about = null; // the section whose value is corrected
let button = null;

async function send(method, path, body) {
  try {
    await ask(method, path, body);
    location.reload();
  } catch (problem) {
    byId("notice").textContent = problem.message;
    byId("notice").scrollIntoView({ block: "center" });
  }
}

const request = (kind, more) =>
  send("POST", "/api/requests", { kind, product_id: product, attribute: about.dataset.attribute, ...more });

const picker = new ValuePicker(
  (values) => request("set", { values }),
  () => button?.focus(),
);

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  if (pressed.dataset.withdraw) send("DELETE", `/api/requests/${pressed.dataset.withdraw}`);
  if (!pressed.dataset.do) return;
  about = pressed.closest("[data-attribute]");
  button = pressed;
  if (pressed.dataset.do === "undo") request("undo", { run_id: pressed.dataset.run });
  if (pressed.dataset.do === "remove") request("set", { values: [] });
  if (pressed.dataset.do === "set") correct();
});

async function correct() {
  about.append(byId("picker"));
  byId("picker").hidden = false;
  const cardinality = about.dataset.cardinality;
  await picker.open(about.dataset.attribute, cardinality, null, byId("product").dataset.language).catch((problem) => {
    byId("notice").textContent = problem.message;
  });
}
