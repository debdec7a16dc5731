"use strict";
// Decisions as CSV: as Python's csv module and spreadsheets read and write it.
const decisionTable = (() => {
  // What spreadsheets take for the beginning of a formula, after any number of our apostrophes.
  const formula = /^'*[=+\-@\t\r][^]/;
  const guarded = (text) => (formula.test(text) && (text[0] === "'" || Number.isNaN(Number(text))) ? `'${text}` : text);
  const plain = (text) => (text[0] === "'" && formula.test(text) ? text.slice(1) : text);

  const cell = (value) => {
    const text = guarded(String(value ?? ""));
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const format = (columns, rows) =>
    [columns, ...rows.map((row) => columns.map((column) => row[column]))]
      .map((cells) => cells.map(cell).join(","))
      .join("\n") + "\n";

  const split = (text, separator, most = Infinity) => {
    const rows = [];
    let row = [], value = "", quoted = false;
    const end = () => {
      row.push(value);
      if (row.some((one) => one !== "")) rows.push(row);
      row = [];
      value = "";
    };
    for (let i = 0; i < text.length && rows.length < most; i += 1) {
      const character = text[i];
      if (quoted) {
        if (character !== '"') value += character;
        else if (text[i + 1] === '"') value += text[(i += 1)];
        else quoted = false;
      } else if (character === '"' && value === "") quoted = true;
      else if (character === separator) {
        row.push(value);
        value = "";
      } else if (character === "\n" || character === "\r") {
        if (character === "\r" && text[i + 1] === "\n") i += 1;
        end();
      } else value += character;
    }
    if (rows.length < most) end();
    return rows;
  };

  // The rows by column; complains where a needed column is missing.
  const parse = (whole, needed) => {
    const text = whole.replace(/^\ufeff/, "").replace(/^sep=[,;\t]\r?\n/, "");
    const header = (separator) => (split(text, separator, 1)[0] || []).map(plain);
    const separator = [",", ";", "\t"].find((one) => needed.every((column) => header(one).includes(column)));
    if (!separator) throw new Error(`expected a table with the columns ${needed.join(", ")}`);
    const [columns, ...rows] = split(text, separator);
    return rows.map((row) => Object.fromEntries(columns.map((column, i) => [plain(column), plain(row[i] ?? "")])));
  };
  return { format, parse };
})();
