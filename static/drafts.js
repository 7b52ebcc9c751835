// A form that is sent after the session has ended is there again, as it was sent, after the next login.
"use strict";
(() => {
  const KEY = "portal-draft";
  const LONGEST_LOGIN_PAGE = 60000; // milliseconds between sending a form and the login page that answers it
  const storage = (() => { try { return sessionStorage; } catch { return null; } })(); // throws if cookies are disabled
  const path = (address) => new URL(address, location.href).pathname;
  const isLogin = () => document.querySelector(".entrance [type=password]") !== null;

  const read = () => {
    try { return JSON.parse(storage?.getItem(KEY) ?? "null"); } catch { return null; }
  };
  const write = (draft) => {
    try { storage?.setItem(KEY, JSON.stringify(draft)); } catch { /* the storage is full: the form is not kept */ }
  };
  const forget = () => storage?.removeItem(KEY);

  const isKept = ([name, value]) => name !== "csrfmiddlewaretoken" && typeof value === "string";
  document.addEventListener("submit", ({ target: form }) => {
    if (form.method !== "post" || form.querySelector("[type=password]")) return;
    write({ action: path(form.action), fields: [...new FormData(form)].filter(isKept), at: Date.now() });
  }, true);
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail.ctx.request?.method !== "POST" || event.detail.ctx.response?.status >= 400) return;
    forget();
    document.querySelector(".draft")?.remove();
  });

  const show = (element) => {
    for (let box = element.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  };
  const fill = (form, fields) => {
    for (const control of form.elements) {
      const values = fields.filter(([name]) => name === control.name).map(([, value]) => value);
      if (!control.name || control.name === "csrfmiddlewaretoken") continue;
      const before = [control.value, control.checked].join();
      if (control.type === "checkbox" || control.type === "radio") control.checked = values.includes(control.value);
      else if (control.options) for (const option of control.options) option.selected = values.includes(option.value);
      else if (values.length) [control.value] = values;
      if ([control.value, control.checked].join() !== before) show(control);
    }
    const told = document.createElement("p");
    told.className = "message warning draft";
    told.textContent = "You were logged out before this form arrived, so nothing was changed. Send it again.";
    form.prepend(told);
    show(form);
    form.scrollIntoView({ block: "center" });
  };

  document.addEventListener("DOMContentLoaded", () => {
    const draft = read();
    if (!draft) return;
    if (isLogin()) {
      if (draft.answered || Date.now() - draft.at < LONGEST_LOGIN_PAGE) write({ ...draft, answered: true });
      else forget();
      return;
    }
    forget();
    if (!draft.answered) return;
    const form = [...document.forms].find((each) => each.method === "post" && path(each.action) === draft.action);
    if (form) fill(form, draft.fields);
    // A form that was in a dialog or in a row has a page of its own.
    else if (document.querySelector(`[hx-get="${CSS.escape(draft.action)}"], [href="${CSS.escape(draft.action)}"]`)) {
      write(draft);
      location.assign(draft.action);
    }
  });
})();
