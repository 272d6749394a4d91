// The forms for the server's token and for the person's name.
import { ask, byId } from "./server.js";

function send(form, path, body, then) {
  byId(form)?.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("POST", path, body());
      then();
    } catch (problem) {
      byId("notice").textContent = problem.message;
    }
  });
}

send("token-form", "/api/token", () => ({ token: byId("token").value.trim() }), () => location.reload());
send("name-form", "/api/name", () => ({ name: byId("name").value }), () => location.assign("/"));
if (location.hash === "#name") byId("name")?.focus();
