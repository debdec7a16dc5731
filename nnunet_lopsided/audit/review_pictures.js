// The pictures of one candidate at a time: decoded when it is shown, and let go when another is.
const sliceViewer = (() => {
  const windows = new Map(); // by channel: { width, level }, of grey values from 0 to 1
  const filters = document.getElementById("windows"); // an svg element, in which the windows are filters
  let shown = null; // { card, planes: [{ at, views, box }], of this candidate }

  const make = (name, attributes, parent) => {
    const element = document.createElementNS(filters.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent?.append(element);
    return element;
  };
  const html = (name, kind, text, parent) => {
    const element = document.createElement(name);
    if (kind) element.className = kind;
    if (text) element.textContent = text;
    parent?.append(element);
    return element;
  };

  const setWindow = (channel, width, level) => {
    windows.set(channel, { width: Math.min(Math.max(width, 0.02), 4), level: Math.min(Math.max(level, -0.5), 1.5) });
    const one = windows.get(channel);
    filters.querySelectorAll(`#window-${channel} feComponentTransfer > *`).forEach((part) => {
      part.setAttribute("slope", String(1 / one.width));
      part.setAttribute("intercept", String(0.5 - one.level / one.width));
    });
  };
  const addFilter = (channel) => {
    if (windows.has(channel)) return;
    const filter = make("filter", { id: `window-${channel}`, "color-interpolation-filters": "sRGB" }, filters);
    const transfer = make("feComponentTransfer", {}, filter);
    for (const colour of ["R", "G", "B"]) make(`feFunc${colour}`, { type: "linear" }, transfer);
    setWindow(channel, 1, 0.5);
  };

  const refresh = (plane) => {
    for (const { svg, image, outlines, caption, title } of plane.views) {
      const { data, at, box } = plane;
      const [height] = data.shape;
      svg.setAttribute("viewBox", box.join(" "));
      image.setAttribute("y", String(-at * height));
      for (const kind of ["reference", "candidate"])
        outlines[kind].forEach((path) => path.setAttribute("d", data[kind][at]));
      caption.textContent = data.slices > 1 ? `${data.name}, slice ${data.first + at} (0 to ${data.slices - 1})` : data.name;
      svg.setAttribute("aria-label", `${title}, ${caption.textContent}`);
    }
  };
  const scroll = (plane, by) => {
    plane.at = Math.min(Math.max(plane.at + by, 0), plane.data.reference.length - 1);
    refresh(plane);
  };
  // By a factor about a place in the picture, both from 0 to 1.
  const zoom = (plane, factor, across = 0.5, down = 0.5) => {
    const [height, width] = plane.data.shape;
    const [x, y, w, h] = plane.box;
    const wide = Math.min(Math.max(w / factor, width / 8), width), high = (wide * height) / width;
    plane.box = [x + (w - wide) * across, y + (h - high) * down, wide, high];
    pan(plane, 0, 0);
  };
  const pan = (plane, across, down) => {
    const [height, width] = plane.data.shape;
    const [x, y, w, h] = plane.box;
    plane.box = [Math.min(Math.max(x + across, 0), width - w), Math.min(Math.max(y + down, 0), height - h), w, h];
    refresh(plane);
  };

  const listen = (svg, plane, channel) => {
    svg.addEventListener("wheel", (event) => {
      const box = svg.getBoundingClientRect();
      if (event.ctrlKey)
        zoom(plane, event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      else if (plane.data.reference.length > 1) scroll(plane, Math.sign(event.deltaY));
      else return;
      event.preventDefault();
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => {
      if (!svg.hasPointerCapture(event.pointerId)) return;
      const box = svg.getBoundingClientRect();
      if (event.shiftKey)
        pan(plane, (-event.movementX / box.width) * plane.box[2], (-event.movementY / box.height) * plane.box[3]);
      else {
        const { width, level } = windows.get(channel);
        setWindow(channel, width * Math.exp(event.movementX / 100), level + (event.movementY / 200) * width);
      }
    });
    svg.addEventListener("dblclick", () => {
      setWindow(channel, 1, 0.5);
      plane.box = [0, 0, plane.data.shape[1], plane.data.shape[0]];
      refresh(plane);
    });
  };

  const view = (plane, channel, title, strip, parent) => {
    const { data } = plane;
    const [height, width] = data.shape;
    const figure = html("figure", "", "", parent);
    const slice = html("div", "slice", "", figure);
    const svg = make("svg", { preserveAspectRatio: "none", role: "img" }, slice);
    svg.style.aspectRatio = data.aspect;
    const image = make("image", {
      width, height: height * data.reference.length, preserveAspectRatio: "none", filter: `url(#window-${channel})`,
      href: `data:image/png;base64,${strip}`,
    }, svg);
    // All casings first: where both outlines run along the same edges, the gaps of the dashes show the reference.
    const outlines = { reference: [], candidate: [] };
    for (const kind of ["reference", "candidate"]) outlines[kind].push(make("path", { class: "outline casing" }, svg));
    for (const kind of ["reference", "candidate"]) outlines[kind].push(make("path", { class: `outline ${kind}` }, svg));
    ["left", "right", "top", "bottom"].forEach((side, i) => {
      if (data.edges[i]) html("span", `edge ${side}`, data.edges[i], slice);
    });
    const words = html("figcaption", "", "", figure);
    html("b", "", title, words);
    html("br", "", "", words);
    const caption = html("span", "", "", words);
    listen(svg, plane, channel);
    plane.views.push({ svg, image, outlines, caption, title });
  };

  const fill = (card) => {
    const content = JSON.parse(card.querySelector("script").textContent);
    const planes = content.planes.map((data) => ({
      data, at: data.centre, views: [], box: [0, 0, data.shape[1], data.shape[0]],
    }));
    const parent = card.querySelector(".pictures");
    parent.replaceChildren();
    content.channels.forEach((title, channel) => {
      addFilter(channel);
      const row = html("div", "planes", "", parent);
      planes.forEach((plane) => view(plane, channel, title, plane.data.strips[channel], row));
    });
    planes.forEach(refresh);
    return planes;
  };
  const empty = (card) => card.querySelector(".pictures").replaceChildren();

  return {
    show: (card) => {
      if (shown?.card === card) return;
      if (shown) empty(shown.card);
      shown = { card, planes: fill(card) };
    },
    // The plane that has slices around the candidate.
    step: (by) => {
      const plane = shown?.planes.find((one) => one.data.reference.length > 1);
      if (plane) scroll(plane, by);
    },
    zoom: (factor) => shown?.planes.forEach((plane) => zoom(plane, factor)),
    reset: () => {
      for (const channel of windows.keys()) setWindow(channel, 1, 0.5);
      shown?.planes.forEach((plane) => {
        plane.at = plane.data.centre;
        plane.box = [0, 0, plane.data.shape[1], plane.data.shape[0]];
        refresh(plane);
      });
    },
    fillAll: (cards) => cards.forEach((card) => card !== shown?.card && fill(card)),
    emptyOthers: (cards) => cards.forEach((card) => card !== shown?.card && empty(card)),
  };
})();
