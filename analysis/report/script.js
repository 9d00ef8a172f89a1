"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  // Tables: a press on a head sorts, another one turns the order around. Cells without a value stay last.
  const key = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key === "" ? null : Number(cell.dataset.key);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (head) => {
    const table = head.closest("table");
    const down = head.getAttribute("aria-sort") === "ascending";
    all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : down ? compare(b, a) : compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  all("button.sort").forEach((button) => button.addEventListener("click", () => sort(button.closest("th"))));

  // Filters: every word has to occur in the row's words.
  const words = (row) => all("th, td.words", row).map((cell) => cell.textContent).join(" ").toLowerCase();
  all("input.filter").forEach((input) =>
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...byId(input.dataset.table).tBodies[0].rows];
      rows.forEach((row) => (row.hidden = !wanted.every((word) => words(row).includes(word))));
      const shown = rows.filter((row) => !row.hidden).length;
      input.closest(".tools").querySelector(".count").textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
    })
  );
  all("input.spreads").forEach((box) =>
    box.addEventListener("change", () => box.closest("section").classList.toggle("spread-shown", box.checked))
  );

  // Curves: rows shown and hidden.
  all("fieldset.legend").forEach((legend) => {
    const panels = byId(legend.dataset.for);
    legend.addEventListener("change", (event) =>
      all(`.series[data-row="${event.target.dataset.row}"]`, panels).forEach((line) =>
        line.classList.toggle("off", !event.target.checked)
      )
    );
  });

  // Links to runs: where the MLflow UI is served may differ from what was assumed.
  const address = byId("mlflow");
  address.addEventListener("change", () => {
    const base = address.value.trim().replace(/\/+$/, "");
    if (!/^https?:\/\/[^/?#]+[^?#]*$/.test(base)) return;
    all("a.run").forEach((link) => link.setAttribute("href", base + link.getAttribute("href").slice(address.dataset.base.length)));
    address.dataset.base = base;
  });

  // Folded parts are printed, too.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((part) => (part.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((part) => (part.open = false)));

  // Affinity and groups, frame by frame.
  const store = byId("films");
  if (!store) return;
  const films = JSON.parse(store.textContent);
  const [row, frame, play, at, groups, cursor] = ["row", "frame", "play", "at", "groups", "cursor"].map((name) => byId(`film-${name}`));
  const unit = 1000;
  const digits = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const look = (kind, value, limit, itself) => {
    const tip = value === null ? "not tracked" : kind === "together" ? `${value} %` : digits((value / unit) * limit);
    if (itself || value === null) return ["self", 1, "", tip];
    if (kind === "together") return ["share", value / 100, String(value), tip];
    return [value >= 0 ? "pos" : "neg", Math.min(Math.abs(value) / unit, 1), "", tip];
  };
  const paint = (kind, film, place) => {
    const cells = all("rect.cell", byId(`map-${kind}`));
    const size = film.tasks.length;
    film[kind][place].forEach((value, index) => {
      const cell = cells[index];
      const [style, opacity, text, tip] = look(kind, value, film.limit, Math.floor(index / size) === index % size);
      cell.setAttribute("class", `cell ${style}`);
      cell.setAttribute("fill-opacity", opacity.toFixed(2));
      cell.firstElementChild.textContent = `${cell.dataset.name}: ${tip}`;
      const label = cell.nextElementSibling;
      if (label && label.classList.contains("value")) {
        label.textContent = text;
        label.classList.toggle("on", Number(text) > 55);
      }
    });
  };
  const element = (name, style, text) => {
    const made = document.createElement(name);
    made.className = style;
    made.textContent = text;
    return made;
  };
  const listGroups = (film, place) =>
    Object.entries(film.groups).map(([seed, frames]) => {
      const line = document.createElement("p");
      const sets = new Map();
      film.tasks.forEach((task, index) => {
        const position = frames[place][index];
        sets.set(position, [...(sets.get(position) || []), task]);
      });
      const shown = [...sets.entries()].sort(([a], [b]) => a - b).flatMap(([, tasks]) => [" ", element("span", "group", tasks.join(", "))]);
      line.append(element("span", "seed", `seed ${seed}`), ...shown);
      return line;
    });
  const draw = () => {
    const film = films[Number(row.value)];
    const place = Number(frame.value);
    const iteration = film.x[place].toLocaleString("en");
    paint("affinity", film, place);
    paint("together", film, place);
    groups.replaceChildren(...listGroups(film, place));
    at.textContent = iteration;
    frame.setAttribute("aria-valuetext", `iteration ${iteration}`);
    byId("film-low").textContent = `−${digits(film.limit)}`;
    byId("film-high").textContent = digits(film.limit);
    if (cursor) {
      const { start, end, high } = cursor.dataset;
      const x = Number(start) + (film.x[place] / Number(high)) * (Number(end) - Number(start));
      cursor.setAttribute("d", `M${x.toFixed(1)} 8V168`);
    }
  };
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
    groups.setAttribute("aria-live", "polite");
  };
  const step = () => {
    if (Number(frame.value) >= Number(frame.max)) return stop();
    frame.value = Number(frame.value) + 1;
    draw();
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(frame.value) >= Number(frame.max)) frame.value = 0;
    // A reader of the screen is not to be talked over while it plays.
    groups.setAttribute("aria-live", "off");
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(step, 150);
    draw();
  });
  frame.addEventListener("input", () => {
    stop();
    draw();
  });
  row.addEventListener("change", () => {
    stop();
    frame.max = films[Number(row.value)].x.length - 1;
    frame.value = frame.max;
    draw();
  });
})();
