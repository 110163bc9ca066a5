// The image: draw on it, drop or open a picture; which of its pixels decided.

const screen = find("image"), shownAs = find("shown"), caption = find("image-told");
const OCCLUDED = 8; // squares along a side of the image
const SAYS = {
  image: "Draw on the image, drop a picture on it, or open one; everything below is updated.",
  gradient: "Norm of the gradient of the loss over the three colors of each pixel.",
  product: "Gradient of the loss times input, over the three colors: red pixels raise the loss, blue ones lower it.",
};

function paintImage() {
  const context = screen.getContext("2d"), size = HEIGHT * WIDTH;
  const picture = context.createImageData(WIDTH, HEIGHT);
  for (let k = 0; k < size; k++) {
    picture.data.set([live.pixels[k], live.pixels[size + k], live.pixels[2 * size + k], 255], 4 * k);
  }
  context.putImageData(picture, 0, 0);
}

// One number a pixel: what each meant for the loss.
function saliency(kind) {
  const { values: [x], gradients: [g] } = live.results[0], size = HEIGHT * WIDTH;
  return each(size, (k) => {
    let sum = 0;
    for (let at = k; at < x.length; at += size) sum += kind === "gradient" ? g[at] * g[at] : g[at] * x[at];
    return kind === "gradient" ? Math.sqrt(sum) : sum;
  });
}

let occlusions = 0;

async function showOcclusion() {
  occlusions += 1;
  const own = occlusions, side = Math.max(1, Math.round(HEIGHT / OCCLUDED));
  caption.textContent = "Computing the occlusion, square by square…";
  const job = { ...jobOf(live.model), label: live.results[0].label, side };
  const { fall, whole } = await ask("occlude", job);
  if (own !== occlusions || shownAs.value !== "occlusion") return;
  paintMaps(screen, fall, [1, HEIGHT, WIDTH], rangeOf([fall], true));
  caption.textContent = `Squares of ${side} pixels: the probability of ${data.classes[job.label]}, ` +
    `${(100 * whole).toFixed(1)} %, falls by up to ${(100 * Math.max(...fall)).toFixed(1)} points.`;
}

function showImage() {
  const kind = shownAs.value;
  if (kind === "occlusion") { showOcclusion(); return; }
  caption.textContent = SAYS[kind];
  if (kind === "image") { screen.width = WIDTH; screen.height = HEIGHT; paintImage(); return; }
  const values = saliency(kind);
  paintMaps(screen, values, [1, HEIGHT, WIDTH], rangeOf([values]));
}

function changeImage(pixels) {
  live.pixels = pixels;
  shownAs.value = "image";
  showImage();
  update();
}

// Paints a disc of the brush's color around a point of the canvas.
function brush(event) {
  const box = screen.getBoundingClientRect(), size = HEIGHT * WIDTH;
  const x = ((event.clientX - box.left) / box.width) * WIDTH - 0.5;
  const y = ((event.clientY - box.top) / box.height) * HEIGHT - 0.5;
  const radius = Number(find("brush").value) / 2;
  const color = [1, 3, 5].map((at) => parseInt(find("color").value.slice(at, at + 2), 16));
  const pixels = live.pixels.slice();
  for (let i = 0; i < HEIGHT; i++) {
    for (let j = 0; j < WIDTH; j++) {
      if ((i - y) ** 2 + (j - x) ** 2 <= radius ** 2) {
        color.forEach((value, c) => { pixels[c * size + i * WIDTH + j] = value; });
      }
    }
  }
  changeImage(pixels);
}

// The largest square in the middle of a picture, at the image's size.
async function openPicture(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    caption.textContent = `${file.name} is not a picture that this browser can read.`;
    return;
  }
  const side = Math.min(picture.width, picture.height), size = HEIGHT * WIDTH;
  const small = new OffscreenCanvas(WIDTH, HEIGHT).getContext("2d");
  small.imageSmoothingQuality = "high";
  small.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side,
    0, 0, WIDTH, HEIGHT);
  const rgba = small.getImageData(0, 0, WIDTH, HEIGHT).data;
  changeImage(each(3 * size, (k) => rgba[4 * (k % size) + Math.floor(k / size)]));
  caption.textContent = `${file.name}, cut to a square of ${WIDTH}×${HEIGHT} pixels.`;
}

screen.addEventListener("pointerdown", (event) => {
  screen.setPointerCapture(event.pointerId);
  brush(event);
});
screen.addEventListener("pointermove", (event) => { if (event.buttons) brush(event); });
const frame = screen.closest("figure");
frame.addEventListener("dragover", (event) => { event.preventDefault(); frame.classList.add("over"); });
frame.addEventListener("dragleave", () => frame.classList.remove("over"));
frame.addEventListener("drop", (event) => {
  event.preventDefault();
  frame.classList.remove("over");
  if (event.dataTransfer.files.length) openPicture(event.dataTransfer.files[0]);
});
find("file").addEventListener("change", (event) => {
  if (event.target.files.length) openPicture(event.target.files[0]);
});
find("blank").addEventListener("click", () => changeImage(new Float32Array(live.pixels.length)));
find("reset").addEventListener("click", () => changeImage(live.original.slice()));
shownAs.addEventListener("change", showImage);
live.listeners.push(() => { if (shownAs.value !== "image") showImage(); });
paintImage();
