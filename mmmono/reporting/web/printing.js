"use strict";
// On paper: light colors whatever the screen has, and the rows that a screen leaves out.

function preparePaper(redraw, features) {
  window.addEventListener("beforeprint", () => {
    document.documentElement.dataset.paper = "";
    redraw();
    features.drawForPaper();
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.paper;
    redraw();
    features.draw(true);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw); // canvases have their colors in them
}
