// Two buttons that save the drawn chart `data.chart` as a picture named `data.name`.
// Plotly draws the picture itself: the button of its own mode bar is pressed, with a white ground and dark text put
// under the chart for that moment. So nothing has to be installed on the server, and what is saved is what is seen.
const PRINT = { template: {}, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", font: { color: "#17232b" } };

function save({ chart, name }, format) {
  const plot = document.querySelector(`.st-key-${chart} .js-plotly-plot`);
  const button = plot?.querySelector('.modebar-btn[data-title^="Download plot"]');
  if (!button) return false;
  const { layout, _context: context } = plot;
  const options = context.toImageButtonOptions;
  const size = { width: plot.clientWidth, height: plot.clientHeight };
  context.toImageButtonOptions = { format, filename: name, ...size, scale: format === "png" ? 3 : 1 };
  plot.layout = { ...layout, ...PRINT };
  try {
    button.click(); // copies the layout before it returns
  } finally {
    plot.layout = layout;
    context.toImageButtonOptions = options;
  }
  return true;
}

export default function ({ data, parentElement }) {
  const problem = parentElement.querySelector("[role=alert]");
  for (const button of parentElement.querySelectorAll("button")) {
    button.onclick = () => {
      problem.hidden = save(data, button.dataset.format);
    };
  }
}
