// Cases to step through, layers to open, links that open their layer, contents that stay in sight.

function stepper(section) {
  const cases = [...section.querySelectorAll(".case")];
  const controls = section.querySelector(".stepper");
  const status = controls.querySelector("span");
  let at = 0;
  function show(next) {
    at = (next + cases.length) % cases.length;
    cases.forEach((each, k) => each.classList.toggle("away", k !== at));
    status.textContent = `case ${at + 1} of ${cases.length}`;
  }
  controls.querySelector(".previous").addEventListener("click", () => show(at - 1));
  controls.querySelector(".next").addEventListener("click", () => show(at + 1));
  controls.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(at - 1);
    if (event.key === "ArrowRight") show(at + 1);
  });
  controls.hidden = false;
  show(0);
}

function openTarget(hash) {
  const target = document.getElementById(decodeURIComponent(hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  }
}

// Marks in the contents the section that is in sight.
function follow(nav) {
  const links = new Map([...nav.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      links.forEach((link, id) => {
        if (id === target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((section) => watch.observe(section));
}

// What is wider than its place says so until it was scrolled.
function hintToScroll(place) {
  const watch = new ResizeObserver(() => {
    place.classList.toggle("wider", place.scrollWidth > place.clientWidth + 4 && place.scrollLeft === 0);
  });
  watch.observe(place);
  if (place.firstElementChild) watch.observe(place.firstElementChild);
  place.addEventListener("scroll", () => place.classList.remove("wider"));
}

function copier(button) {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
  });
}

document.querySelectorAll("#cases").forEach(stepper);
document.querySelectorAll("nav").forEach(follow);
document.querySelectorAll(".scroll").forEach(hintToScroll);
document.querySelectorAll(".copy").forEach(copier);
const layers = [...document.querySelectorAll("details.layer")];
document.querySelectorAll(".open-all").forEach((button) => button.addEventListener("click", () => layers.forEach((each) => { each.open = true; })));
document.querySelectorAll(".close-all").forEach((button) => button.addEventListener("click", () => layers.forEach((each) => { each.open = false; })));
window.addEventListener("hashchange", () => openTarget(location.hash));
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  // a notebook's frame has no address of its own, and would leave the page
  if (location.protocol === "about:") event.preventDefault();
  openTarget(link.getAttribute("href"));
});
openTarget(location.hash);
