// Values of the bar under the pointer, read from the table behind each chart. Events are delegated, so that charts which
// arrive later work too. Keys on a focused chart: left, right, Home, End, Enter (open), Escape (hide).
"use strict";

(() => {
  const GAP = 12;
  let tip = null;
  let spoken = null;
  let current = { plot: null, index: -1 };
  let isKeyed = false;
  let tapOnlyShows = false;

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text) element.textContent = text;
    return element;
  }

  function prepare() {
    if (tip?.isConnected) return;
    tip = make("div", "chart-tip");
    tip.setAttribute("aria-hidden", "true");
    spoken = make("div", "visually-hidden");
    spoken.setAttribute("aria-live", "polite");
    document.body.append(tip, spoken);
  }

  function plotOf(event) {
    return event.target.closest?.(".chart-plot[data-bars]") ?? null;
  }

  function indexAt(plot, x) {
    const box = plot.getBoundingClientRect();
    const count = Number(plot.dataset.bars);
    return Math.min(count - 1, Math.max(0, Math.floor(((x - box.left) / box.width) * count)));
  }

  // One bar as the table has it: what it is, its parts with their swatches, total, remarks, and where it leads.
  function read(plot, index) {
    const figure = plot.closest("figure");
    const table = figure.querySelector(".chart-table table");
    const heads = table.tHead.rows[0].cells;
    const swatches = figure.querySelectorAll(".chart-legend .swatch");
    const row = table.tBodies[0].rows[index];
    const [head, ...cells] = row.cells;
    const facts = {
      title: head.firstChild.textContent,
      when: head.querySelector(".when")?.textContent,
      remark: head.querySelector(".remark")?.textContent,
      link: head.querySelector("a"),
      parts: [],
    };
    cells.forEach((cell, position) => {
      if (cell.classList.contains("total")) facts.total = cell.textContent;
      else if (!cell.classList.contains("nil")) {
        const swatch = swatches[position].className;
        facts.parts.push({ name: heads[position + 1].textContent, value: cell.textContent, swatch });
      }
    });
    return facts;
  }

  function line(name, value, swatch) {
    const item = make("li");
    if (swatch) item.append(make("span", swatch));
    item.append(make("span", "chart-tip-name", name), make("span", "chart-tip-value", value));
    return item;
  }

  function fill(facts, isTouch) {
    const list = make("ul");
    for (const part of facts.parts) list.append(line(part.name, part.value, part.swatch));
    if (!facts.parts.length) list.append(line("Nothing", "–"));
    if (facts.total && facts.parts.length > 1) {
      const total = line("Total", facts.total);
      total.className = "chart-tip-total";
      list.append(total);
    }
    tip.replaceChildren(make("strong", "", facts.title));
    if (facts.when) tip.append(make("span", "chart-tip-when", facts.when));
    tip.append(list);
    if (facts.remark) tip.append(make("p", "chart-tip-remark", facts.remark));
    if (facts.link) tip.append(make("p", "chart-tip-hint", isTouch ? "Tap again to open" : "Click to open"));
  }

  // Beside the bar; where neither side has room, above the plot or below it.
  function position(plot, index) {
    const box = plot.getBoundingClientRect();
    const slot = box.width / Number(plot.dataset.bars);
    const { offsetWidth: width, offsetHeight: height } = tip;
    const room = document.documentElement.clientWidth;
    const right = box.left + slot * (index + 1) + GAP;
    const left = box.left + slot * index - GAP - width;
    let x = right;
    let y = Math.max(GAP, box.top);
    if (right + width > room - GAP) x = left;
    if (x < GAP) {
      x = Math.min(Math.max(GAP, box.left + slot * (index + 0.5) - width / 2), room - width - GAP);
      y = box.top - height - GAP;
      if (y < GAP) y = box.bottom + 2 * GAP;
    }
    tip.style.left = `${x}px`;
    tip.style.top = `${y}px`;
  }

  function show(plot, index, isTouch = false) {
    if (current.plot === plot && current.index === index) return null;
    if (current.plot !== plot) hide();
    prepare();
    current = { plot, index };
    const facts = read(plot, index);
    const cursor = plot.querySelector(".chart-cursor");
    cursor.setAttribute("x", `${(100 * index) / Number(plot.dataset.bars)}%`);
    plot.classList.add("is-read");
    plot.classList.toggle("has-link", Boolean(facts.link));
    fill(facts, isTouch);
    position(plot, index);
    tip.classList.add("is-shown");
    return facts;
  }

  function hide() {
    current.plot?.classList.remove("is-read", "has-link");
    tip?.classList.remove("is-shown");
    current = { plot: null, index: -1 };
    isKeyed = false;
  }

  function say(facts) {
    const parts = facts.parts.map((part) => `${part.name} ${part.value}`);
    if (facts.total && parts.length > 1) parts.push(`total ${facts.total}`);
    const words = [facts.title, facts.when, parts.join(", ") || "nothing", facts.remark];
    spoken.textContent = words.filter(Boolean).join(": ");
  }

  function open(plot, index, event) {
    const { link } = read(plot, index);
    const { ctrlKey, metaKey, shiftKey } = event;
    link?.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, ctrlKey, metaKey, shiftKey }));
  }

  function goTo(key, last) {
    const from = current.index;
    if (key === "Home") return 0;
    if (key === "End") return last;
    if (key === "ArrowRight") return from < 0 ? 0 : Math.min(last, from + 1);
    return from < 0 ? last : Math.max(0, from - 1);
  }

  document.addEventListener("pointermove", (event) => {
    const plot = plotOf(event);
    if (plot) {
      if (show(plot, indexAt(plot, event.clientX), event.pointerType === "touch")) isKeyed = false;
    } else if (event.pointerType !== "touch" && !isKeyed) {
      hide();
    }
  });

  document.addEventListener("pointerdown", (event) => {
    const plot = plotOf(event);
    if (!plot) {
      hide();
      return;
    }
    const isTouch = event.pointerType === "touch";
    tapOnlyShows = show(plot, indexAt(plot, event.clientX), isTouch) !== null && isTouch;
  });

  document.addEventListener("click", (event) => {
    const plot = plotOf(event);
    if (plot && !tapOnlyShows) open(plot, indexAt(plot, event.clientX), event);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const plot = plotOf(event);
    if (!plot || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" && current.plot === plot) open(plot, current.index, event);
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    if (current.plot !== plot) hide();
    const facts = show(plot, goTo(event.key, Number(plot.dataset.bars) - 1));
    isKeyed = true;
    if (facts) say(facts);
  });

  document.addEventListener("focusout", hide);
  document.addEventListener("pointercancel", hide);
  document.addEventListener("htmx:beforeSwap", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  addEventListener("resize", hide);
  addEventListener("blur", hide);
})();
