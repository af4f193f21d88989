"use strict";
// Thousands of points as squares, written into the pixels of a canvas: a call for each would take longer than a frame.

const buffers = new WeakMap(); // of each canvas, for as long as it keeps its size

/** Clear a canvas and draw squares. `squares`: x, y, radius in its pixels, and pixel(color, opacity); later ones lie above. */
function drawSquares(canvas, squares) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  if (!width || !height) return;
  if (buffers.get(canvas)?.width !== width || buffers.get(canvas)?.height !== height)
    buffers.set(canvas, pen.createImageData(width, height));
  const image = buffers.get(canvas);
  const pixels = new Uint32Array(image.data.buffer);
  pixels.fill(0);
  squares((x, y, radius, ink, hollow) => {
    const [left, top] = [Math.max(0, Math.round(x - radius)), Math.max(0, Math.round(y - radius))];
    const size = Math.max(2, Math.round(2 * radius));
    const [right, bottom] = [Math.min(width, left + size), Math.min(height, top + size)];
    for (let row = top; row < bottom; row += 1) {
      const start = row * width;
      if (hollow && row > top && row < bottom - 1) pixels[start + left] = pixels[start + right - 1] = ink;
      else pixels.fill(ink, start + left, start + right);
    }
  });
  pen.putImageData(image, 0, 0);
}

/** A color such as #0072B2 with an opacity, as a pixel of a canvas. */
function pixel(hex, opacity) {
  const [red, green, blue] = [1, 3, 5].map((start) => Number.parseInt(hex.slice(start, start + 2), 16));
  return new Uint32Array(new Uint8ClampedArray([red, green, blue, 255 * opacity]).buffer)[0];
}
