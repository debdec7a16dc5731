"use strict";
// Decisions on candidates: by key or button, kept in this browser under the audit's id, exported as CSV or JSON.
(() => {
  document.documentElement.classList.add("script");
  const audit = JSON.parse(document.getElementById("audit-data").textContent);
  const cards = [...document.querySelectorAll(".finding")];
  const words = { a: "accept", r: "reject", u: "unsure" };
  const key = `lopsided-audit ${audit.id}${audit.given.length ? " consensus" : ""}`;
  const progress = document.getElementById("progress");
  const bar = document.getElementById("bar");
  const jump = document.getElementById("jump");
  let decisions = {};
  let current = 0;

  const load = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(key) || "{}");
      decisions = kept.decisions || {};
      current = Math.min(Math.max(Number(kept.current) || 0, 0), Math.max(cards.length - 1, 0));
    } catch {
      document.getElementById("unkept").hidden = false;
    }
  };
  const keep = () => {
    try {
      localStorage.setItem(key, JSON.stringify({ decisions, current }));
    } catch {
      document.getElementById("unkept").hidden = false;
    }
  };
  const name = (card) => `${card.dataset.case}\n${card.dataset.candidate}`;
  const count = (word) => cards.filter((card) => decisions[name(card)] === word).length;

  const show = () => {
    cards.forEach((card, i) => {
      const decision = decisions[name(card)] || "";
      card.hidden = i !== current;
      card.dataset.decision = decision;
      card.querySelectorAll("button[data-decision]").forEach((button) => {
        button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
      });
    });
    const [accepted, rejected, unsure] = ["accept", "reject", "unsure"].map(count);
    const done = accepted + rejected + unsure;
    progress.textContent =
      `candidate ${current + 1} of ${cards.length}; ${done} decided: ` +
      `${accepted} accepted, ${rejected} rejected, ${unsure} unsure`;
    bar.value = done;
    jump.value = String(current + 1);
    keep();
  };
  const go = (to) => {
    current = Math.min(Math.max(to, 0), cards.length - 1);
    show();
  };
  const decide = (word) => {
    const card = cards[current];
    if (decisions[name(card)] === word) delete decisions[name(card)];
    else decisions[name(card)] = word;
    if (decisions[name(card)] && current < cards.length - 1) current += 1;
    show();
  };
  const nextOpen = () => {
    const after = [...cards.keys()].map((i) => (current + 1 + i) % cards.length);
    const open = after.find((i) => !decisions[name(cards[i])]);
    if (open !== undefined) go(open);
  };

  const rows = () => [
    ...audit.given.map(({ case: of, candidate, decision }) => ({ case: of, candidate, decision })),
    ...cards
      .filter((card) => decisions[name(card)])
      .map((card) => ({
        case: card.dataset.case,
        candidate: Number(card.dataset.candidate),
        decision: decisions[name(card)],
      })),
  ];
  const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = () =>
    ["audit,case,candidate,decision", ...rows().map((r) => [audit.id, cell(r.case), r.candidate, r.decision].join(","))]
      .join("\n") + "\n";
  const json = () => JSON.stringify({ audit: audit.id, dataset: audit.dataset, decisions: rows() }, null, 1) + "\n";
  const save = (text, type, file) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = file;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  document.getElementById("save-csv").addEventListener("click", () => save(csv(), "text/csv", `${audit.file}.csv`));
  document.getElementById("save-json").addEventListener("click", () => save(json(), "application/json", `${audit.file}.json`));
  document.getElementById("contours").addEventListener("change", (event) => {
    document.body.classList.toggle("bare", !event.target.checked);
  });
  jump.addEventListener("change", () => go((Number(jump.value) || 1) - 1));
  document.getElementById("clear").addEventListener("click", () => {
    if (!window.confirm("Forget all decisions of this audit in this browser?")) return;
    decisions = {};
    go(0);
  });
  cards.forEach((card) => {
    card.querySelectorAll("button[data-decision]").forEach((button) => {
      button.addEventListener("click", () => {
        decide(button.dataset.decision);
        button.blur();
      });
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLInputElement && event.target.type !== "checkbox") return;
    const pressed = event.key.toLowerCase();
    if (words[pressed] && cards.length) decide(words[pressed]);
    else if (pressed === "arrowright" || pressed === "arrowdown") go(current + 1);
    else if (pressed === "arrowleft" || pressed === "arrowup") go(current - 1);
    else if (pressed === "home") go(0);
    else if (pressed === "end") go(cards.length - 1);
    else if (pressed === "n" && cards.length) nextOpen();
    else return;
    event.preventDefault();
  });

  if (cards.length) {
    load();
    show();
  }
})();
