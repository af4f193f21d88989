"use strict";
// Dragging over a picture chooses a range; a click that goes nowhere chooses a place.

const FAR = 4; // pixels from which on a click is a drag

/**
 * Follow drags over an element. `moved(first, now)` gets both places in pixels of the element, at each move; `clicked(place)`
 * is called for a press that went nowhere.
 */
function followDrags(element, moved, clicked) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const box = element.getBoundingClientRect();
    const at = (e) => [e.clientX - box.left, e.clientY - box.top];
    const first = at(event);
    let far = false;
    const move = (e) => {
      const now = at(e);
      far ||= Math.hypot(now[0] - first[0], now[1] - first[1]) > FAR;
      if (far) moved(first, now);
    };
    const end = (e) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
      if (e.type === "pointerup") move(e);
      if (e.type === "pointerup" && !far) clicked(first);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  });
}

/** A box after a key: arrows move it, with Shift they move its far corner. Null for other keys. `sizes`: of the whole. */
function boxByKey(box, event, [width, height]) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (!(event.key in steps)) return null;
  const [dx, dy] = steps[event.key].map((step, i) => step * 0.05 * [width, height][i]);
  const moved = { x0: box.x0 + dx, x1: box.x1 + dx, y0: box.y0 + dy, y1: box.y1 + dy };
  if (!event.shiftKey) return moved;
  return { ...box, x1: Math.max(box.x0, box.x1 + dx), y1: Math.max(box.y0, box.y1 + dy) };
}
