"""Style and script of the page of `hlrp-view-labels`: a cursor over the codes that follows the video."""

from __future__ import annotations

LABELS_STYLE = """
.view { margin: 0 0 2.6rem; }
.view h3 { font-size: 1rem; margin: 0 0 0.6rem; overflow-wrap: anywhere; }
.player { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: center; }
.player video { width: 320px; max-width: 100%; border-radius: 10px; background: #000000; }
.now { font-variant-numeric: tabular-nums; }
.now p { margin: 0 0 0.5rem; }
.now label { display: block; margin-top: 0.8rem; font-size: 0.85rem; color: var(--faint); }
.codes { display: flex; flex-wrap: wrap; gap: 0.4rem; max-width: 30rem; }
.codes div { min-width: 3.2rem; padding: 0.35rem 0.5rem; border-radius: 8px; text-align: center; font-weight: 600;
  background: var(--tint); color: var(--faint); font-size: 1.1rem; line-height: 1.2; }
.codes small { display: block; color: inherit; font-weight: 400; font-size: 0.7rem; opacity: 0.85; }
.lines { display: grid; grid-template-columns: max-content 1fr; gap: 0 0.6rem; margin-top: 0.8rem; }
.names { display: grid; grid-auto-rows: 20px; font-size: 0.75rem; line-height: 20px; color: var(--faint);
  white-space: nowrap; }
.timeline { position: relative; cursor: pointer; touch-action: none; border-radius: 4px; overflow: hidden;
  background: repeating-linear-gradient(45deg, var(--tint) 0 4px, var(--rule) 4px 8px); }
.timeline img { display: block; width: 100%; height: 100%; image-rendering: pixelated; }
.cursor { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: var(--ink);
  box-shadow: 0 0 0 1px var(--paper); pointer-events: none; }
.seconds { grid-column: 2; display: flex; justify-content: space-between; font-size: 0.75rem; color: var(--faint); }
.legend { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 0 0 1.4rem; }
.code { display: inline-block; min-width: 1.9rem; padding: 0.05rem 0.45rem; border-radius: 6px; text-align: center;
  font-weight: 600; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
.strips { display: grid; grid-template-columns: 6.5rem 1fr; gap: 0.9rem 0.8rem; align-items: center; }
.strips > div:nth-child(even) { display: grid; gap: 0.6rem 0.9rem; min-width: 0;
  grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); }
.strips figure { margin: 0; }
.strips img { padding: 0; border-radius: 6px; border: 0; }
.strips figcaption { font-size: 0.75rem; margin-top: 0.15rem; }
"""

LABELS_SCRIPT = """
const palette = JSON.parse(document.querySelector(".legend").dataset.colours);
for (const view of document.querySelectorAll(".view")) {
  const video = view.querySelector("video"), line = view.querySelector(".timeline");
  const cursor = view.querySelector(".cursor"), said = view.querySelector(".now p");
  const chips = view.querySelectorAll(".codes div");
  const fps = Number(view.dataset.fps), codes = view.dataset.codes.split(";");
  const show = () => {
    const frame = Math.min(codes.length - 1, Math.floor(video.currentTime * fps + 0.01));
    const now = codes[frame] ? codes[frame].split(" ") : [];
    cursor.style.left = 100 * (frame + 0.5) / codes.length + "%";
    said.textContent = "frame " + frame + ", " + (frame / fps).toFixed(2) + " s" + (now.length ? "" : ": no label");
    chips.forEach((chip, slot) => {
      const [ground, ink] = now.length ? palette[now[slot]] : ["", ""];
      chip.firstChild.textContent = now.length ? now[slot] : "–";
      chip.style.background = ground;
      chip.style.color = ink;
    });
    if (!video.paused && !video.ended) requestAnimationFrame(show);
  };
  for (const event of ["play", "seeking", "seeked", "pause", "ended", "loadeddata"]) {
    video.addEventListener(event, show);
  }
  view.querySelector("select").addEventListener("change", (event) => { video.playbackRate = event.target.value; });
  const seek = (event) => {
    const box = line.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    video.currentTime = (Math.min(Math.floor(share * codes.length), codes.length - 1) + 0.5) / fps;
  };
  line.addEventListener("pointerdown", (event) => { line.setPointerCapture(event.pointerId); seek(event); });
  line.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
  show();
}
"""
