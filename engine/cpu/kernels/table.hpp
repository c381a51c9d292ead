// One instruction set's table of kernels, from the templates.

namespace millrace {
namespace MR_ISA {

static const Kernels kTable = {
    MR_NAME,
#ifdef MR_F16
    true,
    {matmul<PanelF32>, matmul<PanelF16>, matmul<PanelBF16>, nullptr, nullptr, matmul_f8},
    {attend_f32, attend_f16, attend_w8},
#else
    false,
    {matmul<PanelF32>, nullptr, matmul<PanelBF16>, nullptr, nullptr, matmul_f8},
    {attend_f32, nullptr, nullptr},
#endif
    attend_merge,
    attend_finish,
    scan<Rule::gated_delta>,
    scan<Rule::kimi_delta>,
    scan<Rule::ssm>,
    scan<Rule::selective>,
    decays,
    conv,
    add,
    scale,
    activate,
    rmsnorm,
    layernorm,
    sparsify,
    unit,
    rope,
    rope_pairs,
#ifdef MR_F16
    to_f16,
    to_w8,
#else
    nullptr,
    nullptr,
#endif
    mask,
    watermark,
    softcap,
    highest,
    temper,
    exp_sum,
    exp_shift,
    fma_loop,
    nullptr, nullptr,  // kernels_for knows which integers and dots go with these
};

}  // namespace MR_ISA
}  // namespace millrace
