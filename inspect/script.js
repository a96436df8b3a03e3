"use strict";

// What the page says has been done is not said again after a reload.
const address = new URL(location);
if (address.searchParams.has("did")) {
  address.searchParams.delete("did");
  address.searchParams.delete("cookie");
  history.replaceState(null, "", address.search || location.pathname);
  document.getElementById("done")?.focus();
}

// Ends are counted down to, in their two largest units, as the server writes them.
const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function left(seconds) {
  const at = units.findIndex(([size]) => seconds >= size);
  const [size, name] = units[at];
  let text = `in ${Math.floor(seconds / size)} ${name}`;
  const next = units[at + 1];
  const rest = next ? Math.floor(seconds % size / next[0]) : 0;
  return rest > 0 ? `${text} ${rest} ${next[1]}` : text;
}

function countDown(root) {
  for (const end of root.querySelectorAll("time[data-past]")) {
    const seconds = Math.floor((new Date(end.dateTime) - Date.now()) / 1000);
    const text = seconds > 0 ? left(seconds) : end.dataset.past;
    if (end.textContent !== text) end.textContent = text;
  }
}
countDown(document);
setInterval(countDown, 1000, document);

// Sessions and cookies are asked for again after events, because those may have changed them. The focus stays where it is,
// and no button goes from under a pointer that presses it.
let asking = 0, pressed = false;
addEventListener("pointerdown", () => { pressed = true; });
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressed = false; });

function refresh() {
  clearTimeout(asking);
  asking = setTimeout(async () => {
    const res = await fetch(location.href).catch(() => null);
    if (!res || !(res.headers.get("Content-Type") || "").startsWith("text/html")) return;
    const page = new DOMParser().parseFromString(await res.text(), "text/html");
    if (pressed) return refresh();
    countDown(page);
    for (const id of ["sessions", "cookies"]) {
      const was = document.getElementById(id), is = page.getElementById(id);
      if (was.isEqualNode(is)) continue;
      const focused = document.activeElement?.id;
      was.replaceWith(is);
      if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({preventScroll: true});
    }
  }, 150);
}

const list = document.getElementById("list");
if (list) {
  const most = 100;
  const state = document.getElementById("stream");
  const pause = document.getElementById("pause");
  let source = null, paused = false, lost = 0;

  const add = (event) => {
    list.querySelector(".none")?.remove();
    if (Number(event.lastEventId) === 1) list.replaceChildren(); // the program was started again
    list.insertAdjacentHTML("afterbegin", event.data); // written by the server's template, which escapes it
    while (list.children.length > most) list.lastElementChild.remove();
    list.dataset.last = event.lastEventId;
    refresh();
  };
  const say = (text) => { state.textContent = text; };

  // A page that nobody looks at holds no connection: a browser has six for each host.
  const listen = () => {
    const wanted = !paused && !document.hidden;
    if (wanted === (source !== null)) return;
    if (!wanted) {
      source.close();
      source = null;
      say("Paused.");
      return;
    }
    source = new EventSource(`?events=${list.dataset.last}`);
    source.onmessage = add;
    source.onopen = () => { clearTimeout(lost); say("Live."); };
    source.onerror = () => { // also at the end of each stream, after which the browser asks again
      clearTimeout(lost);
      lost = setTimeout(() => say("The program does not answer."), 2000);
      if (source?.readyState === EventSource.CLOSED) { source = null; setTimeout(listen, 2000); }
    };
  };
  pause.hidden = false;
  pause.onclick = () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    listen();
  };
  document.addEventListener("visibilitychange", listen);
  listen();
}
