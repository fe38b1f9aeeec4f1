// Which lines two texts have in common: the longest such sequence.
const MOST_COMPARED = 4e6;

// Lines of both texts in order, each as [sign, line]: " " in both, "-" in the first alone, "+" in the second alone.
// Where the middle is too long to compare, all of it counts as different.
export function compared(before, after) {
  const [a, b] = [lines(before), lines(after)];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const middle = [a.slice(head, a.length - tail), b.slice(head, b.length - tail)];
  const same = (list) => list.map((line) => [" ", line]);
  return [...same(a.slice(0, head)), ...inner(...middle), ...same(a.slice(a.length - tail))];
}

// Changed lines with `around` lines beside them; null stands for lines that are left out.
export function hunks(rows, around = 2) {
  const near = new Set();
  rows.forEach(([sign], at) => {
    if (sign !== " ") for (let each = at - around; each <= at + around; each++) near.add(each);
  });
  const shown = [];
  rows.forEach((row, at) => {
    if (near.has(at)) shown.push(row);
    else if (shown.at(-1) !== null) shown.push(null);
  });
  return shown;
}

const lines = (text) => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));

function inner(a, b) {
  const width = b.length + 1;
  if (a.length * b.length > MOST_COMPARED) return [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
  const longest = new Uint16Array((a.length + 1) * width);
  const common = (i, j) => longest[i * width + j];
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j] ? common(i + 1, j + 1) + 1 : Math.max(common(i + 1, j), common(i, j + 1));
    }
  }
  const rows = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      rows.push([" ", a[i++]]);
      j++;
    } else if (j === b.length || (i < a.length && common(i + 1, j) >= common(i, j + 1))) rows.push(["-", a[i++]]);
    else rows.push(["+", b[j++]]);
  }
  return rows;
}
