// Decisions on candidates: by key or button; kept in this browser under the audit's id and the reader's name, and in a
// file where the browser can; read from and written to CSV and JSON.
(() => {
  document.documentElement.classList.add("script");
  const audit = JSON.parse(document.getElementById("audit-data").textContent);
  const cards = [...document.querySelectorAll(".finding")];
  if (!cards.length) return;
  const element = (id) => document.getElementById(id);
  const words = { a: "accept", r: "reject", s: "unsure" };
  const columns = ["audit", "case", "candidate", "decision", "reader", "time", "comment"];
  const store = `lopsided-audit ${audit.store}`;
  const name = (card) => `${card.dataset.case}\n${card.dataset.candidate}`;
  const byName = new Map(cards.map((card) => [name(card), card]));
  const given = new Set(audit.given.map((row) => `${row.case}\n${row.candidate}`));
  const MOST_PRINTED = 300;

  let entries = {}; // by name of the card: { decision, reader, time, comment, extra }
  let done = []; // what u takes back: { at: card, before: entries that were replaced }
  let order = cards;
  let current = cards[0];
  let file = null; // the file that is written after every change
  let waiting = false, busy = false;

  const tell = (text) => {
    element("told").textContent = text;
  };
  const unkept = () => {
    element("unkept").hidden = false;
  };
  const place = (reader) => (reader ? `${store}\n${reader}` : store);
  const reader = () => element("reader").value.trim();
  const readKept = (who) => {
    try {
      return JSON.parse(localStorage.getItem(place(who)) || "null");
    } catch {
      unkept();
      return null;
    }
  };
  const keep = () => {
    try {
      localStorage.setItem(place(reader()), JSON.stringify({ entries, current: name(current) }));
      localStorage.setItem(`${store} reader`, reader());
    } catch {
      unkept();
    }
    write();
  };
  const take = (kept) => {
    entries = kept?.entries || {};
    current = byName.get(kept?.current) || order[0];
    done = [];
  };

  const decision = (card) => entries[name(card)]?.decision || "";
  const show = (scrolls = false) => {
    const before = document.querySelector(".finding:not([hidden])");
    if (before !== current) {
      before?.setAttribute("hidden", "");
      current.removeAttribute("hidden");
    }
    sliceViewer.show(current);
    current.dataset.decision = decision(current);
    current.querySelectorAll("button[data-decision]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.decision === decision(current)));
    });
    const comment = current.querySelector(".comment");
    if (document.activeElement !== comment) comment.value = entries[name(current)]?.comment || "";
    const count = { accept: 0, reject: 0, unsure: 0 };
    cards.forEach((card) => {
      if (decision(card)) count[decision(card)] += 1;
    });
    const decided = count.accept + count.reject + count.unsure;
    element("progress").textContent =
      `candidate ${order.indexOf(current) + 1} of ${cards.length}; ${decided} decided: ` +
      `${count.accept} accepted, ${count.reject} rejected, ${count.unsure} unsure`;
    element("bar").value = decided;
    element("jump").value = current.dataset.rank;
    if (scrolls) current.scrollIntoView({ block: "start" });
  };
  const go = (card) => {
    current = card;
    show(true);
    keep();
  };
  const step = (by) => go(order[Math.min(Math.max(order.indexOf(current) + by, 0), order.length - 1)]);

  // Replaces entries by name (undefined: none); u takes it back.
  const change = (after) => {
    const before = Object.fromEntries(Object.keys(after).map((key) => [key, entries[key]]));
    done.push({ at: current, before });
    put(after);
  };
  const put = (changed) => {
    for (const [key, entry] of Object.entries(changed)) {
      if (entry) entries[key] = entry;
      else delete entries[key];
    }
  };
  const undo = () => {
    const last = done.pop();
    if (!last) return tell("nothing to undo");
    put(last.before);
    tell("undone");
    go(last.at);
  };
  const changed = (card, what) => {
    const entry = { ...entries[name(card)], ...what, reader: reader(), time: `${new Date().toISOString().slice(0, 19)}Z` };
    return { [name(card)]: entry.decision || entry.comment || entry.extra ? entry : undefined };
  };
  const decide = (word) => {
    if (decision(current) !== word) change(changed(current, { decision: word }));
    tell("");
    step(1);
  };
  const clearOne = () => {
    if (!decision(current)) return;
    change(changed(current, { decision: "" }));
    show();
    keep();
  };
  const nextOpen = () => {
    const at = order.indexOf(current);
    const open = [...order.slice(at + 1), ...order.slice(0, at + 1)].find((card) => !decision(card));
    if (open) go(open);
    else tell("all candidates of this page are decided");
  };

  const rows = () => {
    const own = cards.map(name).filter((key) => entries[key]);
    const beyond = Object.keys(entries).filter((key) => !byName.has(key));
    const made = [...own, ...beyond].map((key) => {
      const [of, candidate] = key.split("\n");
      const { extra, ...entry } = entries[key];
      return { ...extra, audit: audit.id, case: of, candidate: Number(candidate), ...entry };
    });
    return [...audit.given.map((row) => ({ audit: audit.id, ...row })), ...made];
  };
  const csv = () => {
    const all = rows();
    const extra = new Set(all.flatMap((row) => Object.keys(row)).filter((column) => !columns.includes(column)));
    return decisionTable.format([...columns, ...extra], all);
  };
  const json = () => {
    const decisions = rows().map(({ audit: _, ...row }) => ({ ...row, decision: row.decision || null }));
    return JSON.stringify({ audit: audit.id, dataset: audit.dataset, decisions }, null, 1) + "\n";
  };
  const save = (text, type, called) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = called;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // What a file holds, by name of the card; complains where it is of something else.
  const parsed = (text) => {
    const isJson = text.trimStart().replace(/^\ufeff/, "").startsWith("{");
    const content = isJson ? JSON.parse(text.replace(/^\ufeff/, "")) : null;
    const table = isJson
      ? (content.decisions || []).map((row) => ({ ...row, audit: content.audit }))
      : decisionTable.parse(text, columns.slice(0, 4));
    const read = {};
    for (const row of table) {
      if (row.audit !== audit.id) throw new Error(`it is of audit ${row.audit}, and this page of ${audit.id}`);
      const word = String(row.decision || "").trim().toLowerCase();
      if (word && !Object.values(words).includes(word)) throw new Error(`expected accept, reject or unsure, found ${row.decision}`);
      const key = `${row.case}\n${Number(row.candidate)}`;
      const others = Object.entries(row).filter(
        ([column, value]) => !columns.includes(column) && !audit.known.includes(column) && !/^contrast_\d+$/.test(column) && value);
      if ((!word && !row.comment && !others.length) || given.has(key)) continue;
      read[key] = { decision: word, reader: row.reader || "", time: row.time || "", comment: row.comment || "" };
      if (others.length) read[key].extra = Object.fromEntries(others);
    }
    return read;
  };
  const told = (read) => {
    const keys = Object.keys(read);
    const off = keys.filter((key) => !byName.has(key)).length;
    return `${keys.length} read` + (off ? `; ${off} of them on candidates that this page does not show, kept` : "");
  };
  const open = async (chosen) => {
    try {
      const read = parsed(await chosen.text());
      change(read);
      tell(`${chosen.name}: ${told(read)}`);
      show();
      keep();
    } catch (error) {
      tell(`${chosen.name} was not read: ${error.message}`);
    }
  };

  const write = () => {
    waiting = file !== null;
    if (busy || !waiting) return;
    busy = true;
    const into = file;
    (async () => {
      while (waiting) {
        waiting = false;
        const stream = await into.createWritable();
        await stream.write(csv());
        await stream.close();
        element("kept").textContent = `saved in ${into.name}, ${new Date().toLocaleTimeString()}`;
      }
    })().catch((error) => {
      file = null;
      element("kept").textContent = `${into.name} can no longer be written: ${error.message}`;
    }).finally(() => {
      busy = false;
    });
  };
  const keepInFile = async () => {
    let chosen;
    try {
      chosen = await window.showSaveFilePicker({
        suggestedName: `${audit.file}.csv`, types: [{ description: "CSV", accept: { "text/csv": [".csv"] } }],
      });
    } catch {
      return; // the reader changed their mind
    }
    try {
      // What it holds already is not lost; what was decided here counts.
      const text = await (await chosen.getFile()).text();
      if (text.trim()) {
        const read = parsed(text);
        change(Object.fromEntries(Object.entries(read).filter(([key]) => !entries[key])));
        tell(`${chosen.name}: ${told(read)}`);
      }
    } catch (error) {
      tell(`${chosen.name} is left as it is: ${error.message}`);
      return;
    }
    file = chosen;
    show();
    keep();
  };

  const sort = () => {
    const byCase = (one, other) =>
      one.dataset.case.localeCompare(other.dataset.case, "en", { numeric: true }) ||
      one.dataset.candidate - other.dataset.candidate;
    order = element("order").value === "case" ? [...cards].sort(byCase) : cards;
  };
  const jump = () => {
    const card = cards.find((one) => one.dataset.rank === String(Number(element("jump").value)));
    element("jump").blur();
    if (card) go(card);
    else tell(`this page shows no candidate ${element("jump").value}`);
    show();
  };

  element("save-csv").addEventListener("click", () => save(csv(), "text/csv", `${audit.file}.csv`));
  element("save-json").addEventListener("click", () => save(json(), "application/json", `${audit.file}.json`));
  element("keep-in-file").hidden = !window.showSaveFilePicker;
  element("keep-in-file").addEventListener("click", keepInFile);
  element("read-file").addEventListener("change", async (event) => {
    if (event.target.files[0]) await open(event.target.files[0]);
    event.target.value = "";
    event.target.blur();
  });
  element("contours").addEventListener("change", (event) => {
    document.body.classList.toggle("bare", !event.target.checked);
    event.target.blur();
  });
  element("order").addEventListener("change", (event) => {
    sort();
    event.target.blur();
    show(true);
  });
  element("jump").addEventListener("change", jump);
  element("clear").addEventListener("click", (event) => {
    event.target.blur();
    if (!window.confirm("Forget all decisions of this reader on this audit in this browser?")) return;
    change(Object.fromEntries(Object.keys(entries).map((key) => [key, undefined])));
    go(order[0]);
  });
  element("undo").addEventListener("click", (event) => {
    event.target.blur();
    undo();
  });
  let named = "";
  element("reader").addEventListener("change", (event) => {
    const kept = readKept(reader());
    if (kept) {
      take(kept);
      tell(`decisions of ${reader() || "no name"} in this browser: ${Object.keys(entries).length}`);
    } else if (named) {
      take(null); // another reader begins
      tell(`no decisions of ${reader() || "no name"} in this browser yet`);
    } else {
      // What was decided before the name was given is this reader's.
      for (const entry of Object.values(entries)) entry.reader ||= reader();
      try {
        localStorage.removeItem(place(""));
      } catch {
        unkept();
      }
    }
    named = reader();
    event.target.blur();
    show();
    keep();
  });
  cards.forEach((card) => {
    card.querySelectorAll("button[data-decision]").forEach((button) => {
      button.addEventListener("click", () => {
        button.blur();
        if (decision(card) === button.dataset.decision) clearOne();
        else decide(button.dataset.decision);
      });
    });
    card.querySelector(".comment").addEventListener("change", (event) => {
      change(changed(card, { comment: event.target.value.trim() }));
      keep();
    });
  });

  const keys = {
    arrowright: () => step(1),
    arrowleft: () => step(-1),
    arrowdown: () => sliceViewer.step(1),
    arrowup: () => sliceViewer.step(-1),
    home: () => go(order[0]),
    end: () => go(order[order.length - 1]),
    n: nextOpen,
    u: undo,
    backspace: clearOne,
    delete: clearOne,
    g: () => element("jump").select(),
    c: () => current.querySelector(".comment").focus(),
    "+": () => sliceViewer.zoom(1.25),
    "-": () => sliceViewer.zoom(0.8),
    0: () => sliceViewer.reset(),
  };
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if ((event.ctrlKey || event.metaKey || event.altKey) && event.key.toLowerCase() !== "z") return;
    if (target.matches?.("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape" || (event.key === "Enter" && target.matches(".comment, #reader"))) target.blur();
      return;
    }
    const pressed = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) undo();
    else if (words[pressed]) decide(words[pressed]);
    else if (keys[pressed]) keys[pressed]();
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeprint", () => cards.length <= MOST_PRINTED && sliceViewer.fillAll(cards));
  window.addEventListener("afterprint", () => sliceViewer.emptyOthers(cards));

  try {
    element("reader").value = localStorage.getItem(`${store} reader`) || "";
  } catch {
    unkept();
  }
  named = reader();
  take(readKept(named));
  cards.forEach((card) => {
    card.dataset.decision = decision(card);
  });
  show();
})();
