// Verdicts that the server has not confirmed yet. They are kept in the browser, so that they survive a reload and a
// restart of the server, and are sent one after the other until the server has them.
import { ask, Refused } from "./server.js";

const RETRY_MS = 2000;

export class Unsent {
  // onSaved(verdict, answer), onRefused(verdict, message), onWaiting(count)
  constructor(key, handlers) {
    this.key = key;
    this.handlers = handlers;
    this.sending = null;
  }

  all() {
    try {
      return JSON.parse(localStorage.getItem(this.key) ?? "[]");
    } catch {
      return [];
    }
  }

  keep(list) {
    if (list.length) localStorage.setItem(this.key, JSON.stringify(list));
    else localStorage.removeItem(this.key);
  }

  // Another tab may have changed the list since: only this verdict is removed.
  remove(verdict) {
    const list = this.all();
    const sent = JSON.stringify(verdict);
    const place = list.findIndex((verdict) => JSON.stringify(verdict) === sent);
    this.keep(list.filter((_, at) => at !== place));
  }

  add(verdict) {
    this.keep([...this.all(), verdict]);
    return this.flush();
  }

  // Resolves when nothing is left to send.
  flush() {
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async sendAll() {
    for (let list = this.all(); list.length; list = this.all()) {
      const verdict = list[0];
      try {
        const answer = await ask("POST", "/api/verdicts", verdict);
        this.remove(verdict);
        this.handlers.onSaved(verdict, answer);
      } catch (problem) {
        if (problem instanceof Refused && problem.status < 500 && problem.status !== 401) {
          this.remove(verdict);
          this.handlers.onRefused(verdict, problem.message);
        } else {
          this.handlers.onWaiting(list.length, problem.message);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        }
      }
    }
  }
}
