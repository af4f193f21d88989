from pathlib import Path

import pytest
import torch

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import TopKSAE
from mmmono.dictionaries.saelens import export_to_saelens, import_from_saelens


@pytest.mark.parametrize("encoder_bias", [False, True])
def test_saelens_loads_what_we_export(tmp_path: Path, encoder_bias: bool) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    torch.manual_seed(0)
    sae = TopKSAE(16, 40, 5, encoder_bias=encoder_bias)
    with torch.no_grad():
        sae.W_enc += 0.1 * torch.randn_like(sae.W_enc)
        sae.b_pre += torch.randn_like(sae.b_pre)
        if sae.b_enc is not None:
            sae.b_enc += 0.1 * torch.randn_like(sae.b_enc)
    export_to_saelens(sae, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    z = torch.randn(25, 16)
    codes = sae.encode(z, "image")
    torch.testing.assert_close(theirs.encode(z), codes)
    torch.testing.assert_close(theirs.decode(codes), sae.decode(codes, "image"))
    back = import_from_saelens(tmp_path)
    torch.testing.assert_close(back.encode(z, "text"), codes)
    torch.testing.assert_close(back.decode(codes, "text"), sae.decode(codes, "text"))


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match=r"center=pooled"):
        export_to_saelens(TopKSAE(8, k=2, center="per_modality"), tmp_path)
    with pytest.raises(DictionaryError, match="no SAE of SAELens"):
        import_from_saelens(tmp_path)
    export_to_saelens(TopKSAE(8, k=2), tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(config.read_text().replace('"topk"', '"jumprelu"'))
    with pytest.raises(DictionaryError, match="architecture='jumprelu'"):
        import_from_saelens(tmp_path)
