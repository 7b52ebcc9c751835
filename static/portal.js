// Conveniences that HTML alone can't provide. All pages also work without this script.
"use strict";
(() => {
  const root = document.documentElement;
  const storage = (() => { try { return localStorage; } catch { return null; } })(); // throws if cookies are disabled

  // Set the theme before the first paint, which is why this file isn't deferred.
  const setTheme = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  setTheme(storage?.getItem("portal-theme"));

  const markTheme = () => {
    for (const button of document.querySelectorAll("[data-set-theme]"))
      button.setAttribute("aria-pressed", String(button.dataset.setTheme === (root.dataset.theme ?? "system")));
  };

  // In a port map, only one cell can be reached with the Tab key; the arrow keys move to the others.
  const prepareMaps = () => {
    for (const map of document.querySelectorAll(".map")) {
      const cells = [...map.querySelectorAll(".cell")];
      const current = cells.find((cell) => cell === document.activeElement) ?? cells[0];
      for (const cell of cells) cell.tabIndex = cell === current ? 0 : -1;
    }
  };
  const moveInMap = (event, cell) => {
    const cells = [...cell.closest(".map").querySelectorAll(".cell")];
    const columns = cells.filter((other) => other.offsetTop === cells[0].offsetTop).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const here = cells.indexOf(cell);
    const next = event.key === "Home" ? 0 : event.key === "End" ? cells.length - 1 : step ? here + step : -1;
    if (!cells[next]) return;
    event.preventDefault();
    cell.tabIndex = -1;
    cells[next].tabIndex = 0;
    cells[next].focus();
  };
  // In the search results, the up and down keys move between the links; up from the first returns to the search box.
  const moveInSearch = (event, box) => {
    const search = box.querySelector("input[type=search]");
    const targets = [search, ...box.querySelectorAll("#results a")];
    const next = targets[targets.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
    if (!next) return;
    event.preventDefault();
    next.focus();
  };

  const closeSearch = () => {
    const results = document.querySelector(".search #results");
    if (results) results.hidden = true;
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.querySelector(".search input[type=search]")?.focus();
    }
    if (event.key === "Escape") {
      closeSearch();
      for (const menu of document.querySelectorAll("details.menu[open]")) {
        menu.open = false;
        menu.querySelector("summary").focus();
      }
    }
    const cell = event.target.closest?.(".map .cell");
    if (cell) moveInMap(event, cell);
    const box = event.target.closest?.(".search");
    if (box && (event.key === "ArrowDown" || event.key === "ArrowUp")) moveInSearch(event, box);
  });

  document.addEventListener("click", async (event) => {
    const close = event.target.closest("[data-close]");
    if (close) {
      event.preventDefault();
      const dialog = close.closest("dialog");
      if (dialog) dialog.close();
      else close.closest(".message")?.remove();
    }
    const theme = event.target.closest("[data-set-theme]");
    if (theme) {
      storage?.setItem("portal-theme", theme.dataset.setTheme);
      setTheme(theme.dataset.setTheme);
      markTheme();
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      await navigator.clipboard.writeText(copy.dataset.copy);
      copy.dataset.copied = "";
      setTimeout(() => delete copy.dataset.copied, 1500);
    }
    for (const menu of document.querySelectorAll("details.menu[open]"))
      if (!menu.contains(event.target)) menu.open = false;
    if (!event.target.closest(".search")) closeSearch();
  });

  // Show the dialog as soon as htmx has put a form into it, and close it when the form has been accepted.
  document.addEventListener("htmx:after:swap", (event) => {
    prepareMaps();
    // A form that was refused because its token was old can be sent again.
    const fresh = document.getElementById("fresh-token");
    for (const field of fresh ? document.querySelectorAll("[name=csrfmiddlewaretoken]") : []) field.value = fresh.value;
    fresh?.remove();
    const { sourceElement, response } = event.detail.ctx;
    const accepted = response?.status < 400;
    // A morph keeps the values of the fields, so reset the form once it has been accepted.
    if (accepted && sourceElement?.matches?.("form[data-once]")) sourceElement.reset();
    const dialog = document.getElementById("dialog");
    if (accepted && dialog.open) dialog.close();
    else if (dialog.querySelector("form") && !dialog.open) dialog.showModal();
  });
  document.addEventListener("close", (event) => event.target.id === "dialog" && event.target.replaceChildren(), true);
  document.addEventListener("focusin", (event) => {
    const results = document.querySelector(".search #results");
    if (results && event.target.matches(".search input")) results.hidden = false;
    if (results && !event.target.closest(".search")) closeSearch();
  });
  // Show a message if a request got no response.
  document.addEventListener("htmx:error", (event) => {
    const text = document.querySelector("#offline");
    if (text && event.detail.ctx) text.hidden = false;
  });
  document.addEventListener("htmx:after:request", () => {
    const text = document.querySelector("#offline");
    if (text) text.hidden = true;
  });
  document.addEventListener("DOMContentLoaded", () => {
    root.dataset.scripted = "";
    markTheme();
    prepareMaps();
  });
})();
