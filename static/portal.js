// What HTML cannot do by itself. Everything works without it, only less conveniently.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = (() => { try { return localStorage; } catch { return null; } })(); // cookies switched off: no memory

  // Before the first paint, so this file is not deferred: light, dark, or as the system has it.
  const setTheme = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  setTheme(stored?.getItem("portal-theme"));

  const markTheme = () => {
    for (const button of document.querySelectorAll("[data-set-theme]"))
      button.setAttribute("aria-pressed", String(button.dataset.setTheme === (root.dataset.theme ?? "system")));
  };

  // A map of ports is one stop of the Tab key; the arrow keys move inside it.
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
  // In the list of findings, up and down move between the links, and up from the first goes back to the box.
  const moveInSearch = (event, box) => {
    const search = box.querySelector("input[type=search]");
    const stops = [search, ...box.querySelectorAll("#results a")];
    const next = stops[stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
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
      stored?.setItem("portal-theme", theme.dataset.setTheme);
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

  // htmx puts a question into #dialog; it is asked as a modal one, and closed when it was answered.
  document.addEventListener("htmx:after:swap", (event) => {
    prepareMaps();
    const { sourceElement, response } = event.detail.ctx;
    const accepted = response?.status < 400;
    // A morph keeps what was typed; once it is done with, the form is to be empty again.
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
  // A request that never got an answer: say so where people look.
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
